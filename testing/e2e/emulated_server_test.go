//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/hsa"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// An emulatedAnswer is what llama-server answers to a prompt without sampling.
type emulatedAnswer struct {
	Tokens        []int32 `json:"tokens"`
	Probabilities []struct {
		LogProb float64 `json:"logprob"`
	} `json:"completion_probabilities"`
}

// generate starts the rig's llama-server with layers on the card and returns what follows a prompt.
func (r *rig) generate(t *testing.T, model, layers, report string) (out emulatedAnswer) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s.sock")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log syncbuffer.Buffer
	cmd := r.command(ctx, "", "-m", model, "--host", socket, "-ngl", layers, "-c", "512", "-np", "1", "--no-warmup", "-fa", "off", "-ctk", "f32", "-ctv", "f32")
	cmd.Env = append(cmd.Env, hsa.EnvReport+"="+report)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is killed
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("llama-server:\n%s", log.String())
		}
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	request := func(method, path string, body []byte) (*http.Response, error) {
		req, err := http.NewRequestWithContext(ctx, method, "http://server"+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		return client.Do(req)
	}
	poll.Until(t, "llama-server", func() bool {
		select {
		case <-ended:
			t.Fatalf("llama-server ended:\n%s", log.String())
		default:
		}
		res, err := request(http.MethodGet, "/health", nil)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	body := `{"prompt": "The quick brown fox", "n_predict": 4, "temperature": 0, "return_tokens": true, "n_probs": 1, "ignore_eos": true}`
	res, err := request(http.MethodPost, "/completion", []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestEmulatedCardAnswersAsTheCPU runs the shipped llama-server with all layers of a tiny model on each card. Its tokens
// and their logarithmic probabilities are the CPU's.
func TestEmulatedCardAnswersAsTheCPU(t *testing.T) {
	model := tiny(t, "llama-spm", 1)
	cpu := newRig(t, "gfx1100").generate(t, model, "0", os.DevNull)
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
			report := filepath.Join(t.TempDir(), "report")
			card := r.generate(t, model, "99", report)
			if !slices.Equal(card.Tokens, cpu.Tokens) {
				t.Errorf("the card answers %v, and the CPU %v", card.Tokens, cpu.Tokens)
			}
			for n, p := range card.Probabilities {
				const within = 1e-3
				if want := cpu.Probabilities[n].LogProb; math.Abs(p.LogProb-want) > within {
					t.Errorf("token %d has %v on the card, and %v on the CPU", n, p.LogProb, want)
				}
			}
			lines, err := os.ReadFile(report)
			if err != nil {
				t.Fatal(err)
			}
			for _, kernel := range []string{"mul_mat_vec_f", "rms_norm_f32", "rope_norm", "soft_max_f32", "unary_gated_op"} {
				if !strings.Contains(string(lines), kernel) {
					t.Errorf("the card ran no %s", kernel)
				}
			}
		})
	}
}
