//go:build linux && amd64

package rocm_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// TestMain makes this binary the llama-server of a bundle, where it is started as one. The
// tests share directories for sockets and caches.
func TestMain(m *testing.M) {
	os.Exit(fakebundle.Main(func() int {
		return torture.Main(func() int {
			dir, err := os.MkdirTemp("", "")
			for name, sub := range map[string]string{"XDG_RUNTIME_DIR": "run", userdirs.EnvCache: "cache"} {
				path := filepath.Join(dir, sub)
				err = errors.Join(err, os.Mkdir(path, 0o700), os.Setenv(name, path))
			}
			// The parallel tests wait for child processes and do not compute, so more of them
			// run together than there are processors.
			err = errors.Join(err, flag.Set("test.parallel", "6"))
			code := 1
			if err == nil {
				code = m.Run()
			}
			if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
			return code
		})
	}))
}

// load loads the fake model as the contract does.
func load(t *testing.T, s fakellama.Script, opts ...inference.LoadOption) *rocm.Model {
	t.Helper()
	b := fakebundle.New(t, s)
	m, err := (&rocm.Backend{Defaults: rocm.Settings{Bundle: b.Dir}}).LoadModel(b.Model, opts...)
	if err != nil {
		t.Fatal(err)
	}
	model, ok := m.(*rocm.Model)
	if !ok {
		t.Fatalf("a %T", m)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Error(err)
		}
	})
	return model
}

// loadWith loads the fake model with settings.
func loadWith(t *testing.T, script fakellama.Script, s rocm.Settings) *rocm.Model {
	t.Helper()
	b := fakebundle.New(t, script)
	s.Bundle = b.Dir
	m, err := new(rocm.Backend).Load(t.Context(), b.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func text(tokens []inference.Token) string {
	var b strings.Builder
	for _, t := range tokens {
		b.WriteString(t.Text)
	}
	return b.String()
}

func collect(seq func(func(inference.Token) bool)) []inference.Token {
	var out []inference.Token
	for t := range seq {
		out = append(out, t)
	}
	return out
}

func kill(t *testing.T, m *rocm.Model) {
	t.Helper()
	if err := syscall.Kill(m.Server().Child.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func waitIdle(t *testing.T, m *rocm.Model) {
	t.Helper()
	poll.Until(t, "idle slots", func() bool {
		slots, err := m.API().Slots(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(slots, func(s llamaapi.Slot) bool { return s.Processing })
	})
}
