//go:build linux && amd64

package rocm_test

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// TestMain makes this binary the llama-server of a bundle, where it is started as one.
func TestMain(m *testing.M) {
	os.Exit(fakebundle.Main(func() int { return torture.Main(m.Run) }))
}

func load(t *testing.T, s fakellama.Script, opts ...inference.LoadOption) *rocm.Model {
	t.Helper()
	m, err := inference.LoadModel(fakebundle.Use(t, s), append(opts, inference.WithBackend(rocm.Name))...)
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
func loadWith(t *testing.T, s rocm.Settings) *rocm.Model {
	t.Helper()
	m, err := (&rocm.Backend{}).Load(t.Context(), fakebundle.Use(t, fakellama.Script{}), s)
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
