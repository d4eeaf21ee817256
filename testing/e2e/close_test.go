//go:build e2e

package e2e

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/cases"
)

// TestCloseRightAfterLoad closes models that were never used. llama-server reports
// that it is ready before it handles SIGTERM; a model that was returned at that
// point could only be killed.
func TestCloseRightAfterLoad(t *testing.T) {
	path := tiny(t, "llama-spm", 1)
	for range cases.Of(3, 3, 8) {
		var log bytes.Buffer
		s := rocm.Settings{}
		s.Context, s.Log = 512, slog.New(slog.NewTextHandler(&log, nil))
		s.Timeouts.Stop = 20 * time.Second // for a busy machine
		model, err := (&rocm.Backend{}).Load(t.Context(), path, s)
		if err != nil {
			t.Fatal(err)
		}
		if err := model.Close(); err != nil {
			t.Error(err)
		}
		if said := log.String(); strings.Contains(said, "was killed") || !strings.Contains(said, "to=stopped") {
			t.Errorf("it did not end by itself:\n%s", said)
		}
	}
}
