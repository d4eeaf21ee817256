package fakellama

import (
	"bytes"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	a, err := parseArgs([]string{
		"--host", "/run/x.sock", "-m", "m.gguf", "-np", "3", "-c", "900", "-ngl", "99", "--no-ui", "-fa", "on",
		"--lora", "a.gguf", "--slot-save-path", "/s", "--control-vector-layer-range", "1", "2", "--jinja", "--embedding",
	}, nil)
	if err != nil || a.host != "/run/x.sock" || a.model != "m.gguf" || a.slots != 3 || a.context != 900 || !a.embeddings || a.slotSave != "/s" {
		t.Errorf("%+v, %v", a, err)
	}
	if s := merge(Script{}, a); s.Slots != 3 || s.ContextLen != 300 || !s.SlotSave || s.Adapters[0] != "a.gguf" {
		t.Errorf("script %+v", s)
	}
	for want, argv := range map[string][]string{
		"error: invalid argument: --nope":                                 {"--nope"},
		`error while handling argument "-m": expected value for argument`: {"-m"},
		`error while handling argument "-c"`:                              {"-c", "abc"},
	} {
		if _, err := parseArgs(argv, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v: %v", argv, err)
		}
	}
	if _, err := parseArgs([]string{"-fa", "on"}, []string{"-fa"}); err == nil {
		t.Error("a flag that an old server lacks is taken")
	}
	var b bytes.Buffer
	if err := help(&b, []string{"-fa", "--flash-attn"}); err != nil || strings.Contains(b.String(), "--flash-attn") || !strings.Contains(b.String(), "-ngl,") {
		t.Errorf("help, %v:\n%.300s", err, b.String())
	}
}
