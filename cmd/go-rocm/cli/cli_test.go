//go:build linux && amd64

package cli

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

const envRunMain = "CLI_TEST_RUN_MAIN"

// envPasswd names the file of users of the program under test, which must not find the
// directories of the user who runs the test.
const envPasswd = "CLI_TEST_PASSWD"

// exitAtOnce is for programs under the race detector, which otherwise wait a second before
// they exit.
const exitAtOnce = "GORACE=atexit_sleep_ms=0"

// TestMain makes the test binary also act as go-rocm, and as the llama-server of
// its bundle.
func TestMain(m *testing.M) {
	goROCm := func() {
		if path := os.Getenv(envPasswd); path != "" {
			userdirs.UsePasswd(path)
		}
		os.Exit(Main("1.2.3-test", os.Args[1:]))
	}
	if os.Getenv(envRunMain) != "" && filepath.Base(os.Args[0]) != "llama-server" {
		goROCm()
	}
	testscript.Main(withSIGHUP{m}, map[string]func(){
		"go-rocm":      goROCm,
		"llama-server": func() { fakellama.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr)) },
	})
}

// withSIGHUP stops ignoring SIGHUP, as it is under nohup: the programs under test
// would inherit that.
type withSIGHUP struct{ *testing.M }

func (m withSIGHUP) Run() int {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	return m.M.Run()
}

// world is the environment of a run of the program.
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
	if err := writeServer(bundle); err != nil {
		t.Fatal(err)
	}
	script, err := s.Env()
	if err != nil {
		t.Fatal(err)
	}
	w.env = append(os.Environ(), envRunMain+"=1", script, supervise.EnvInherit+"="+envRunMain+","+fakellama.EnvScript, "GOROCM_BUNDLE="+bundle, "GOROCM_API_KEY=", exitAtOnce,
		"XDG_RUNTIME_DIR="+filepath.Join(w.dir, "run"), "HOME="+w.dir, "XDG_CACHE_HOME="+filepath.Join(w.dir, "cache"), "GOROCM_CACHE=")
	const id = "smollm2-135m-Q8_0"
	w.model = filepath.Join(w.dir, "models", id+".gguf")
	if err := writeModel(w.model, id); err != nil {
		t.Fatal(err)
	}
	return w
}

// writeServer writes a bundle's llama-server, which starts this binary. It is a script, for
// go-rocm reads the whole program to recognise it.
func writeServer(bundle string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	link := filepath.Join(bundle, "fake", "llama-server")
	script := "#!/bin/sh\nexec '" + link + "' \"$@\"\n"
	// A process that another test starts meanwhile would inherit the open file, which the
	// kernel then does not execute (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return errors.Join(os.Mkdir(filepath.Dir(link), 0o700), os.Symlink(self, link), os.WriteFile(filepath.Join(bundle, "llama-server"), []byte(script), 0o700))
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = w.env
	return cmd
}

// output runs the program and returns its output and exit status.
func (w *world) output(t *testing.T, args ...string) (out, errs string, status int) {
	t.Helper()
	cmd := w.command(args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

// projector writes a tiny projector into the world.
func (w *world) projector(t *testing.T) string {
	t.Helper()
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.dir, "mmproj.gguf")
	if err := b.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// file writes a file into the world.
func (w *world) file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
