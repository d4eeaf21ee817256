//go:build install

package install_test

import (
	"context"
	"strings"
	"testing"
)

// TestImageAnswers loads the container image and checks that it answers, as an
// unprivileged user on a read-only root.
func TestImageAnswers(t *testing.T) {
	list := named(t, "GOROCM_SMALL_IMAGE")
	gguf := model(t.Context(), t)
	e := engine(t)
	loaded, err := e.LoadImage(t.Context(), list[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := loaded.Remove(context.Background()); err != nil {
			t.Error(err)
		}
	})
	ref := loaded.Ref
	version, err := e.RunImage(t.Context(), ref, 0, nil, "version")
	if err != nil || !strings.Contains(version, "installed, /usr/lib/go-rocm/llama") {
		t.Errorf("version: %v\n%s", err, version)
	}
	if _, err := e.RunImage(t.Context(), ref, 0, nil, "verify", "--installed"); err != nil {
		t.Error(err)
	}
	answer, err := e.RunImage(t.Context(), ref, 0, []string{gguf + ":/model.gguf:ro"}, "run", "/model.gguf", "--temperature", "0", "-p", question)
	if err != nil || !strings.Contains(answer, "Paris") {
		t.Errorf("asked %q, got %q, %v", question, answer, err)
	}

	// The kernel itself kills llama-server; nothing is simulated.
	small := []string{gguf + ":/model.gguf:ro"}
	_, err = e.RunImage(t.Context(), ref, 120<<20, small, "run", "/model.gguf", "--context", "8192", "-p", question)
	if err == nil || !strings.Contains(err.Error(), "model does not fit") {
		t.Errorf("with 120 MiB: %v", err)
	}
	_, err = e.RunImage(t.Context(), ref, 120<<20, small, "run", "/model.gguf", "--context", "8192", "--overcommit", "-p", question)
	if err == nil || !strings.Contains(err.Error(), "the kernel's out-of-memory killer ended a process of this control group") {
		t.Errorf("with 120 MiB, accepted: %v", err)
	}
}
