//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// A probability is the logarithmic probability of a token.
type probability struct {
	ID      int32   `json:"id"`
	LogProb float64 `json:"logprob"`
}

// An emulatedAnswer is what llama-server answers to a prompt without sampling.
type emulatedAnswer struct {
	Tokens        []int32 `json:"tokens"`
	Probabilities []struct {
		probability
		Top []probability `json:"top_logprobs"` // as many as were asked for, the most likely first
	} `json:"completion_probabilities"`
}

// An emulatedServer is a llama-server of a rig.
type emulatedServer struct {
	client *http.Client
	stop   context.CancelFunc
	ended  chan struct{}
	log    syncbuffer.Buffer
}

// serve starts the rig's llama-server with a model, and returns it when it is ready.
func (r *rig) serve(t *testing.T, model, report string, args ...string) *emulatedServer {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	ctx, cancel := context.WithCancel(t.Context())
	s := &emulatedServer{stop: cancel, ended: make(chan struct{})}
	cmd := r.command(ctx, "", append([]string{"-m", model, "--host", socket, "--no-warmup"}, args...)...)
	cmd.Env = append(cmd.Env, hsa.EnvReport+"="+beside(hsa.EnvReport, report))
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // it is killed
		close(s.ended)
	}()
	s.client = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	t.Cleanup(func() {
		s.close()
		if t.Failed() {
			t.Logf("llama-server:\n%s", s.log.String())
		}
	})
	poll.Until(t, "llama-server", func() bool {
		select {
		case <-s.ended:
			t.Fatalf("llama-server ended:\n%s", s.log.String())
		default:
		}
		res, err := s.request(t, http.MethodGet, "/health", nil)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return s
}

// beside returns a variable of the environment with a file beside that of the whole run, if there is one.
func beside(name, path string) string {
	if all := os.Getenv(name); all != "" {
		path += string(filepath.ListSeparator) + all
	}
	return path
}

// fileOf adds a file of the test to a variable of the environment with files, and returns its path.
func fileOf(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	t.Setenv(name, beside(name, path))
	return path
}

// close kills the server and waits until it has ended.
func (s *emulatedServer) close() {
	s.stop()
	<-s.ended
	s.client.CloseIdleConnections()
}

func (s *emulatedServer) request(t *testing.T, method, path string, body []byte) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://server"+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	return s.client.Do(req)
}

// complete returns the tokens that follow a prompt, a text or tokens, and for each the most likely ones.
func (s *emulatedServer) complete(t *testing.T, prompt any, tokens, top int) (out emulatedAnswer, err error) {
	t.Helper()
	// llama-server leaves out the probabilities of a token that is part of a character.
	const bytesEnd = 259 // in the vocabulary of Llama
	never := make([]any, bytesEnd)
	for n := range never {
		never[n] = []any{n, false}
	}
	body, err := json.Marshal(map[string]any{
		"logit_bias": never,
		"prompt":     prompt, "n_predict": tokens, "temperature": 0, "return_tokens": true, "n_probs": top, "ignore_eos": true, "cache_prompt": false,
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.request(t, http.MethodPost, "/completion", body)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(res.Body)
		return out, fmt.Errorf("%s: %s", res.Status, text)
	}
	return out, json.NewDecoder(res.Body).Decode(&out)
}

// generate starts the rig's llama-server on a device and returns what follows a prompt.
func (r *rig) generate(t *testing.T, model, device, report string) emulatedAnswer {
	t.Helper()
	s := r.serve(t, model, report, "--device", device, "-c", "512", "-np", "1", "-fa", "off", "-ctk", "f32", "-ctv", "f32")
	defer s.close()
	out, err := s.complete(t, "The quick brown fox", 4, 1)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEmulatedCardAnswersAsTheCPU runs the shipped llama-server with all layers of a tiny model on each card. Its tokens
// and their logarithmic probabilities are the CPU's.
func TestEmulatedCardAnswersAsTheCPU(t *testing.T) {
	model := tiny(t, "llama-spm", 1)
	cpu := newRig(t, "gfx1100").generate(t, model, onCPU, os.DevNull)
	if len(cpu.Tokens) != 4 || len(cpu.Probabilities) != 4 {
		t.Fatalf("the CPU answers %+v", cpu)
	}
	for target, device := range map[string]string{"gfx1100": "AMD Radeon RX 7900 XTX (24560 MiB", "gfx1101": "AMD Radeon RX 7800 XT (16368 MiB"} {
		t.Run(target, func(t *testing.T) {
			r := newRig(t, target)
			out, err := r.command(t.Context(), "", "--list-devices").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "ROCm0: "+device) {
				t.Errorf("--list-devices: %v\n%s", err, out)
			}
			report, coverage := filepath.Join(t.TempDir(), "report"), fileOf(t, hsa.EnvCoverage)
			card := r.generate(t, model, onCard, report)
			if !slices.Equal(card.Tokens, cpu.Tokens) {
				t.Errorf("the card answers %v, and the CPU %v", card.Tokens, cpu.Tokens)
			}
			for n, p := range card.Probabilities {
				const within = 1e-3
				if want := cpu.Probabilities[n].LogProb; math.Abs(p.LogProb-want) > within {
					t.Errorf("token %d has %v on the card, and %v on the CPU", n, p.LogProb, want)
				}
			}
			ranKernels(t, report, "mul_mat_vec_f", "rms_norm_f32", "rope_norm", "soft_max_f32", "unary_gated_op")
			coversReport(t, r, coverage, report)
		})
	}
}

// ranKernels checks that a report has kernels with each of the words in their names.
func ranKernels(t *testing.T, report string, words ...string) {
	t.Helper()
	lines, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range words {
		if !strings.Contains(string(lines), word) {
			t.Errorf("the card ran no %s", word)
		}
	}
}

// coversReport checks that the coverage of a run has the kernels of its report, each of which is in the bundle or is the
// HIP runtime's own.
func coversReport(t *testing.T, r *rig, coverage, report string) {
	t.Helper()
	executed, err := survey.ReadExecuted(coverage)
	if err != nil {
		t.Fatal(err)
	}
	c, err := survey.Cover([]string{r.Dir}, executed)
	if err != nil {
		t.Fatal(err)
	}
	covered := map[string]bool{}
	for k := range executed {
		covered[string(k.Target)+" "+k.Kernel] = true
	}
	lines, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	reported := map[string]bool{}
	for line := range strings.Lines(string(lines)) {
		fields := strings.Fields(line)
		reported[fields[0]+" "+fields[1]] = true
	}
	if !maps.Equal(covered, reported) {
		t.Errorf("the coverage has %d kernels, and the report %d", len(covered), len(reported))
	}
	for _, k := range c.Others {
		if !strings.HasPrefix(k.Kernel, "__amd_rocclr_") {
			t.Errorf("%s of the code object %s is not in the bundle", k.Kernel, k.Object)
		}
	}
	for _, target := range []gfx.Target{"gfx1100", "gfx1101"} {
		for _, part := range []string{survey.PartGGML, survey.PartRocBLAS, survey.PartTensile} {
			ran, all := c.Total(part, target)
			t.Logf("%s for %s: %d of %d kernels", part, target, ran, all)
			if fewest := map[string]int{survey.PartGGML: 1000, survey.PartRocBLAS: 100, survey.PartTensile: 100}[part]; all < fewest {
				t.Errorf("%s has %d kernels for %s", part, all, target)
			}
		}
	}
	if ran, _ := c.Total(survey.PartGGML, gfx.Target(r.cards)); ran < len(reported)-len(c.Others) || ran == 0 {
		t.Errorf("%d kernels of libggml-hip were executed, and the report has %d", ran, len(reported))
	}
}
