//go:build linux && amd64

package fakebundle_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

func says(t *testing.T, path string) string {
	t.Helper()
	m, err := inference.LoadModel(path, inference.WithBackend(rocm.Name))
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for token := range m.Generate(t.Context(), "hello") {
		text += token.Text
	}
	if err := m.Err(); err != nil {
		t.Error(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	return text
}

func TestUse(t *testing.T) {
	if got := says(t, fakebundle.Use(t, fakellama.Script{Reply: "from a child"})); got != "from a child" {
		t.Errorf("got %q", got)
	}
}

// The bundles of New do not know of each other, nor of that of the environment. A script
// arrives whole, and that of Before runs first.
func TestNew(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{Reply: "of the environment"})
	ran := filepath.Join(t.TempDir(), "ran")
	for _, reply := range []string{"one", "it's $HOME `x` \\ \"two\""} {
		t.Run(reply, func(t *testing.T) {
			t.Parallel()
			b := fakebundle.New(t, fakellama.Script{Reply: reply})
			b.Before(t, "echo >>"+ran)
			m, err := new(rocm.Backend).Load(t.Context(), b.Model, rocm.Settings{Bundle: b.Dir})
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			for token := range m.Generate(t.Context(), "hello") {
				text += token.Text
			}
			if err := errors.Join(m.Err(), m.Close()); err != nil || text != reply {
				t.Errorf("got %q, %v", text, err)
			}
			if _, err := os.Stat(ran); err != nil {
				t.Error(err)
			}
		})
	}
}

// Nested bundles are independent, and the outer one is restored.
func TestExample(t *testing.T) {
	outer := fakebundle.Use(t, fakellama.Script{Reply: "outer"})
	done := fakebundle.Example(fakellama.Script{Reply: "inner"})
	inner := os.Getenv(fakebundle.EnvModel)
	if got := says(t, inner); got != "inner" {
		t.Errorf("inside: %q", got)
	}
	done()
	if _, err := os.Stat(inner); !os.IsNotExist(err) {
		t.Errorf("the inner model is still there: %v", err)
	}
	if os.Getenv(fakebundle.EnvModel) != outer {
		t.Errorf("%s is %q", fakebundle.EnvModel, os.Getenv(fakebundle.EnvModel))
	}
	if got := says(t, outer); got != "outer" {
		t.Errorf("outside: %q", got)
	}
}

func TestMakeRejects(t *testing.T) {
	if _, err := fakebundle.Make(t.TempDir(), fakellama.Script{Slots: -1}); err == nil {
		t.Error("a wrong script is taken")
	}
	dir := t.TempDir()
	if _, err := fakebundle.Make(dir, fakellama.Script{}); err != nil {
		t.Fatal(err)
	}
	if _, err := fakebundle.Make(dir, fakellama.Script{}); err == nil {
		t.Error("a directory is used twice")
	}
}
