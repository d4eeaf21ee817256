//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

const (
	envBundle    = locate.EnvBundle
	envHIPBundle = "GOROCM_HIP_BUNDLE"
	// envBackendOps is the variable with the path of llama.cpp's test-backend-ops.
	envBackendOps = "GOROCM_BACKEND_OPS"
	// envLavapipe is the variable with the directory of Mesa's lavapipe of Debian 13.
	envLavapipe = "GOROCM_LAVAPIPE"
	envCLI      = "GOROCM_CLI"
	envCache    = "GOROCM_CACHE"
	// envWork is the variable with the directory of a run, which TestMain sets for the tests.
	envWork = "GOROCM_E2E_WORK"
)

// TestMain creates a cache and a socket directory for this run, so that the run neither
// depends on the machine's nor changes them.
func TestMain(m *testing.M) {
	os.Exit(fakebundle.Main(func() int {
		code, err := run(m)
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = 1
		}
		return code
	}))
}

func run(m *testing.M) (code int, err error) {
	for name, what := range map[string]string{
		envBundle:        "the packed cpu bundle",
		models.EnvSource: "the directory of the llama.cpp source",
	} {
		if _, err := os.Stat(os.Getenv(name)); err != nil {
			return 0, fmt.Errorf("%s has to name %s: %w; `mage test` builds it and sets the variable", name, what, err)
		}
	}
	kept, err := models.CacheDir()
	if err != nil {
		return 0, err
	}
	work, err := os.MkdirTemp("", "rocm-e2e-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	for _, dir := range []string{"cache", "run", "bin"} {
		if err := os.Mkdir(filepath.Join(work, dir), 0o700); err != nil {
			return 0, err
		}
	}
	err = errors.Join(
		os.Setenv("GOROCM_TEST_MODELS", kept),
		os.Setenv(envCache, filepath.Join(work, "cache")),
		os.Setenv("XDG_RUNTIME_DIR", filepath.Join(work, "run")),
		os.Setenv(envWork, work),
	)
	if err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// onceEach builds each program once for each run.
var onceEach sync.Map // from package path to func() (string, error)

// program builds a command of the project and returns its path.
func program(t *testing.T, pkg string) string {
	t.Helper()
	build, _ := onceEach.LoadOrStore(pkg, sync.OnceValues(func() (string, error) {
		path := filepath.Join(os.Getenv(envWork), "bin", filepath.Base(pkg))
		out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
		}
		return path, nil
	}))
	once, ok := build.(func() (string, error))
	if !ok {
		t.Fatalf("onceEach holds a %T", build)
	}
	path, err := once()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func askProgram(t *testing.T) string {
	return program(t, "forge.lthn.ai/core/go-rocm/testing/e2e/ask")
}

// cli returns the command that the build passed, or builds one from the source.
func cli(t *testing.T) string {
	if path := os.Getenv(envCLI); path != "" {
		return path
	}
	return program(t, "forge.lthn.ai/core/go-rocm/cmd/go-rocm")
}

// realModel returns the path of a trained model, which it downloads if necessary.
func realModel(t *testing.T, m models.Model) string {
	t.Helper()
	path, err := models.Fetch(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// tiny writes a random model with a real tokenizer.
func tiny(t *testing.T, tokenizer string, seed uint64) string {
	t.Helper()
	path, err := models.Tiny(t.TempDir(), tokenizer, ggufgen.TinyOptions{Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// load loads a model with the cpu bundle in this process.
func load(t *testing.T, path string, opts ...inference.LoadOption) *rocm.Model {
	t.Helper()
	loaded, err := inference.LoadModel(path, append([]inference.LoadOption{inference.WithContextLen(2048)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	model, ok := loaded.(*rocm.Model)
	if !ok {
		t.Fatalf("LoadModel gave a %T", loaded)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	return model
}

// chat asks the question and returns the answer.
func chat(t *testing.T, model *rocm.Model) string {
	t.Helper()
	return shortChat(t, model, 16)
}

// shortChat asks the question and returns the first tokens of the answer.
func shortChat(t *testing.T, model *rocm.Model, tokens int) string {
	t.Helper()
	var text strings.Builder
	for token := range model.Chat(t.Context(), []inference.Message{{Role: "user", Content: question}}, inference.WithMaxTokens(tokens)) {
		text.WriteString(token.Text)
	}
	if err := model.Err(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// ended reports whether a process has exited, possibly as a zombie that its parent has not
// waited for yet.
func ended(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, ok := strings.Cut(string(stat), ") ")
	return !ok || strings.HasPrefix(rest, "Z")
}

// children returns the processes that pid started and that run llama-server.
func children(t *testing.T, pid int) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// Processes start and exit while they are listed.
		stat, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		cmdline, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) && bytes.Contains(cmdline, []byte("llama-server")) {
			found = append(found, child)
		}
	}
	return found
}
