// Package fakebundle provides testing/fakellama as the llama-server of package rocm, so that a test
// or an example runs the whole backend, including a child process, without a bundle and without
// weights:
//
//	func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }
//
//	func TestIt(t *testing.T) {
//		b := fakebundle.New(t, fakellama.Script{Reply: "yes"})
//		m, err := new(rocm.Backend).Load(t.Context(), b.Model, rocm.Settings{Bundle: b.Dir})
//		...
//	}
//
// Use makes the bundle the one that is found, by the environment of the process. Tests of New
// can run in parallel, tests of Use cannot.
//
// The test binary itself is the server: the bundle is a directory whose llama-server starts it,
// and Main runs fakellama if the environment requests it. The server's answers are scripted; it
// reads only the header of the model.
package fakebundle

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// envRole is set in the environment of the child process.
const envRole = "GOROCM_FAKE_ROLE"

// EnvModel is the variable with the path of the model that Example creates.
const EnvModel = "MODEL"

// Main runs the tests, or the server if this process was started as one.
func Main(run func() int) int {
	if os.Getenv(envRole) != "" {
		fakellama.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}
	return run()
}

// Bundle is a bundle and a model to load with it: SmolLM2-135M in shape, without data.
type Bundle struct {
	// Dir is the bundle's directory, for rocm.Settings.Bundle.
	Dir string
	// Model is the path of the model.
	Model string

	env    map[string]string // of the server
	before string            // the script of Before
}

// New creates a bundle for the duration of a test, and leaves the environment alone: sockets
// and caches are in the directories of the process.
func New(t testing.TB, s fakellama.Script) *Bundle {
	t.Helper()
	env, err := Make(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	b := &Bundle{Dir: env[locate.EnvBundle], Model: env[EnvModel], env: env}
	b.Before(t, "")
	return b
}

// Server is the path of the bundle's llama-server.
func (b *Bundle) Server() string { return filepath.Join(b.Dir, "llama-server") }

// Before lets llama-server run a shell script first, which sees the server's environment and
// may change it.
func (b *Bundle) Before(t testing.TB, script string) {
	t.Helper()
	b.before = script
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	text.WriteString("#!/bin/sh\n")
	for _, name := range []string{envRole, fakellama.EnvScript} {
		text.WriteString("export " + name + "=" + quote(b.env[name]) + "\n")
	}
	text.WriteString(script + "\nexec " + quote(self) + ` "$@"` + "\n")
	// A process that another test starts meanwhile would inherit the open file, which the
	// kernel then does not execute (ETXTBSY).
	syscall.ForkLock.RLock()
	err = errors.Join(os.Remove(b.Server()), os.WriteFile(b.Server(), []byte(text.String()), 0o700))
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
}

// SetScript replaces the script of the servers that are started from now on.
func (b *Bundle) SetScript(t testing.TB, s fakellama.Script) {
	t.Helper()
	script, err := s.Env()
	if err != nil {
		t.Fatal(err)
	}
	_, b.env[fakellama.EnvScript], _ = strings.Cut(script, "=")
	b.Before(t, b.before)
}

// quote quotes a word for the shell.
func quote(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// AddGPUModule adds a GPU module with code for gfx1100 and gfx1101: plans then choose a GPU if
// there is one.
func (b *Bundle) AddGPUModule(t testing.TB) {
	t.Helper()
	addGPUModule(t, b.Dir)
}

// Use creates a bundle for the duration of a test and returns the path of a model to load with it:
// SmolLM2-135M in shape, without data.
func Use(t testing.TB, s fakellama.Script) (model string) {
	t.Helper()
	env, err := Make(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	return env[EnvModel]
}

// AddGPUModule is Bundle.AddGPUModule for the bundle that Use created for the test.
func AddGPUModule(t testing.TB) {
	t.Helper()
	addGPUModule(t, os.Getenv(locate.EnvBundle))
}

func addGPUModule(t testing.TB, dir string) {
	t.Helper()
	module := elfgen.Spec{Sections: []elfgen.Section{elfgen.FatBinary(elfgen.Bundle(
		elfgen.Entry{ID: "host-x86_64-unknown-linux-gnu-"},
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1100", Code: elfgen.CodeObject(0x41, []string{"k"}, 10)},
		elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1101", Code: elfgen.CodeObject(0x46, []string{"k"}, 10)},
	))}}
	if err := os.WriteFile(filepath.Join(dir, "libggml-hip.so"), module.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Example creates a bundle for an Example function, which has no testing.T, and sets EnvModel to the
// path of its model. The returned function restores everything.
func Example(s fakellama.Script) (done func()) {
	dir, err := os.MkdirTemp("", "fakebundle-")
	if err != nil {
		panic(err)
	}
	env, err := Make(dir, s)
	if err != nil {
		panic(errors.Join(err, os.RemoveAll(dir)))
	}
	before := map[string]*string{}
	for name, value := range env {
		if old, ok := os.LookupEnv(name); ok {
			before[name] = &old
		} else {
			before[name] = nil
		}
		err = errors.Join(err, os.Setenv(name, value))
	}
	done = func() {
		for name, old := range before {
			if old == nil {
				err = errors.Join(err, os.Unsetenv(name))
			} else {
				err = errors.Join(err, os.Setenv(name, *old))
			}
		}
		if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
			panic(err)
		}
	}
	return done
}

// Make writes a bundle and a model to dir and returns the environment in which package rocm uses
// them.
func Make(dir string, s fakellama.Script) (env map[string]string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("fake bundle: %w", err)
	}
	script, err := s.Env()
	if err != nil {
		return nil, err
	}
	name, value, _ := strings.Cut(script, "=")
	env = map[string]string{
		name: value, envRole: "server",
		supervise.EnvInherit: name + "," + envRole,
		locate.EnvBundle:     filepath.Join(dir, "bundle"),
		"XDG_RUNTIME_DIR":    filepath.Join(dir, "run"),
		"GOROCM_CACHE":       filepath.Join(dir, "cache"),
		EnvModel:             filepath.Join(dir, "smollm2-135m.gguf"),
	}
	for _, sub := range []string{env[locate.EnvBundle], env["XDG_RUNTIME_DIR"], env["GOROCM_CACHE"]} {
		if err := os.Mkdir(sub, 0o700); err != nil {
			return nil, fmt.Errorf("fake bundle: %w", err)
		}
	}
	if err := os.Symlink(self, filepath.Join(env[locate.EnvBundle], "llama-server")); err != nil {
		return nil, fmt.Errorf("fake bundle: %w", err)
	}
	return env, writeModel(env[EnvModel])
}

func writeModel(path string) (err error) {
	for _, k := range ggufgen.Catalogue() {
		if k.Name != "smollm2-135m" {
			continue
		}
		f, err := os.Create(path)
		if err != nil {
			return fmt.Errorf("fake bundle: %w", err)
		}
		_, err = k.Builder().WriteSparse(f)
		return errors.Join(err, f.Close())
	}
	return errors.New("fake bundle: the catalogue of testing/ggufgen has no smollm2-135m")
}
