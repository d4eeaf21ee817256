//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

const roleName = "CLI_TEST_ROLE"

// TestMain lets this binary be go-rocm, and the llama-server of its bundle.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "llama-server" {
		os.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}
	if os.Getenv(roleName) != "" {
		os.Exit(Main("1.2.3-test", os.Args[1:]))
	}
	// Who calls the tests under nohup has it ignored, and so would what they start.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	os.Exit(m.Run())
}

// world is what a run of the program sees.
type world struct {
	env   []string
	model string
	dir   string
}

func newWorld(t *testing.T, s fakellama.Script) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	bundle := filepath.Join(w.dir, "bundle")
	for _, d := range []string{bundle, filepath.Join(w.dir, "run"), filepath.Join(w.dir, "models")} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(os.Args[0], filepath.Join(bundle, "llama-server")); err != nil {
		t.Fatal(err)
	}
	script, err := s.Env()
	if err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), roleName+"=1", script, "GOROCM_BUNDLE="+bundle, "GOROCM_API_KEY=",
		"XDG_RUNTIME_DIR="+filepath.Join(w.dir, "run"), "HOME="+w.dir, "XDG_CACHE_HOME="+filepath.Join(w.dir, "cache"), "GOROCM_CACHE=")
	for _, k := range ggufgen.Catalogue() {
		if k.Name != "smollm2-135m" {
			continue
		}
		w.model = filepath.Join(w.dir, "models", k.ID()+".gguf")
		f, err := os.Create(w.model)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Builder().WriteSparse(f); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = w.env
	return cmd
}

// output runs the program to its end.
func (w *world) output(t *testing.T, stdin string, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := w.command(args...)
	var o, e bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &o, &e
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func TestRunAnswers(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "Paris, naturally 🗼"})
	for name, args := range map[string][]string{
		"prompt": {"run", w.model, "-p", "Capital of France?", "--stats"},
		"raw":    {"run", w.model, "-p", "The capital of France is", "--raw", "--temperature", "0"},
		"system": {"run", w.model, "-p", "Capital?", "--system", "Be brief.", "--seed", "7"},
	} {
		out, errs, status := w.output(t, "", args...)
		if status != 0 || out != "Paris, naturally 🗼\n" {
			t.Errorf("%s: status %d, %q, %s", name, status, out, errs)
		}
		if name == "prompt" && !strings.Contains(errs, "prompt tokens in") {
			t.Errorf("--stats tells %q", errs)
		}
	}
	if out, errs, status := w.output(t, "piped in", "run", w.model); status != 0 || out != "Paris, naturally 🗼\n" {
		t.Errorf("piped: status %d, %q, %s", status, out, errs)
	}
}

func TestMistakesAreExplained(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	for name, tt := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"unknown flag":    {[]string{"run", w.model, "--no-such"}, exitUsage, "--no-such"},
		"unknown command": {[]string{"fly"}, exitUsage, "fly"},
		"no model":        {[]string{"run"}, exitUsage, "accepts 1 arg"},
		"empty pipe":      {[]string{"run", w.model}, exitUsage, "-p"},
		"missing model":   {[]string{"run", "/no/such.gguf", "-p", "x"}, exitFailure, "no such file"},
		"foreign address": {[]string{"serve", w.model, "--listen", "0.0.0.0:0"}, exitUsage, "--api-key-file"},
		"all interfaces":  {[]string{"serve", w.model, "--listen", ":0"}, exitUsage, "--api-key-file"},
		"no port":         {[]string{"serve", w.model, "--listen", "localhost"}, exitUsage, "host:port"},
		"missing keys":    {[]string{"serve", w.model, "--api-key-file", "/no/such"}, exitFailure, "api keys"},
		"no keys":         {[]string{"serve", w.model, "--api-key-file", w.model}, exitFailure, "visible ASCII"},
		"half of tls":     {[]string{"serve", w.model, "--tls-cert", "x"}, exitUsage, "--tls-key"},
		"two of one kind": {[]string{"cache", "prune", "x"}, exitUsage, `cache prune: unknown command "x"`},
		"two settings":    {[]string{"config", "check", "a", "b"}, exitUsage, "config check: accepts at most 1 arg"},
		"no such check":   {[]string{"config", "chekc"}, exitUsage, "chekc"},
		"no such help":    {[]string{"help", "nosuch"}, exitUsage, `"go-rocm" has no command "nosuch"`},
		"help too deep":   {[]string{"help", "cache", "nosuch"}, exitUsage, `"go-rocm cache" has no command "nosuch"`},
		"flags that bite": {[]string{"cache", "prune", "--days", "1", "--all"}, exitUsage, "days all"},
		"two shells":      {[]string{"completion", "bash", "x"}, exitUsage, "completion bash"},
		"verify nothing":  {[]string{"verify"}, exitUsage, "--embedded"},
		"verify two":      {[]string{"verify", "x", "--installed"}, exitUsage, "--embedded"},
		"control codes":   {[]string{"verify", "/no/\x1b[2Jsuch"}, exitFailure, "/no/\ufffd[2Jsuch"},
		"verify no file":  {[]string{"verify", "/no/such"}, exitFailure, "no such file"},
		"bad override":    {[]string{"fit", w.model, "--override", "maybe"}, exitFailure, "override"},
	} {
		_, errs, status := w.output(t, "", tt.args...)
		if status != tt.status || !strings.Contains(errs, tt.says) || !strings.HasPrefix(errs, "go-rocm: ") ||
			strings.HasSuffix(errs, "\nsee: go-rocm help\n") != (status == exitUsage) {
			t.Errorf("%s: status %d, want %d that says %q: %s", name, status, tt.status, tt.says, errs)
		}
	}
}

func TestFacts(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	out, _, status := w.output(t, "", "version", "--json")
	var v versionFacts
	if err := json.Unmarshal([]byte(out), &v); err != nil || status != 0 || v.Version != "1.2.3-test" || v.Bundle == nil || v.Platform != "linux/amd64" {
		t.Errorf("version: %d, %v, %s", status, err, out)
	}
	out, _, status = w.output(t, "", "models", w.dir, "--json")
	var models []rocm.Found
	if err := json.Unmarshal([]byte(out), &models); err != nil || status != 0 || len(models) != 1 || !models[0].Loadable || models[0].Architecture != "llama" {
		t.Errorf("models: %d, %v, %s", status, err, out)
	}
	out, _, status = w.output(t, "", "fit", w.model, "--json", "--context", "4096")
	var plan struct {
		Context int      `json:"context"`
		Args    []string `json:"args"`
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil || status != 0 || plan.Context != 4096 || len(plan.Args) == 0 {
		t.Errorf("fit: %d, %v, %s", status, err, out)
	}
	out, _, status = w.output(t, "", "doctor", "--json")
	var findings []doctor.Finding
	if err := json.Unmarshal([]byte(out), &findings); err != nil || status != 0 || len(findings) < 4 {
		t.Errorf("doctor: %d, %v, %s", status, err, out)
	}
	for _, args := range [][]string{{"version"}, {"models", w.dir}, {"fit", w.model}, {"doctor"}, {"gpus"}, {"gpus", "--json"}, {"help"}, {"help", "cache", "prune"}, {"completion", "bash"}} {
		if out, errs, status := w.output(t, "", args...); status != 0 || out == "" {
			t.Errorf("%v: status %d, %q, %s", args, status, out, errs)
		}
	}
	w.env = append(w.env, "GOROCM_BUNDLE="+w.dir)
	if _, errs, status := w.output(t, "", "doctor"); status != exitFailure || !strings.Contains(errs, "manifest.json") {
		t.Errorf("doctor without a bundle: status %d, %s", status, errs)
	}
}
