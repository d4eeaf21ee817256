package bundle_test

import (
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// The windows are those of docs/pack.md, and the zstd command gets them: 32 MiB for
// a frame of more than 96 MiB, 8 MiB for others. Other windows would change the
// bytes of every release and the memory that a reader needs.
func TestWindowByFrameSize(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		size int64
		log  int
		flag string
	}{
		{0, 23, "--zstd=wlog=23"},
		{64 << 20, 23, "--zstd=wlog=23"},
		{96 << 20, 23, "--zstd=wlog=23"},
		{96<<20 + 1, 25, "--zstd=wlog=25"},
		{4 << 30, 25, "--zstd=wlog=25"},
	} {
		got := bundle.WindowLog(tc.size)
		if got != tc.log || 1<<got > bundle.MaxWindow {
			t.Errorf("a frame of %d bytes: 2^%d, want 2^%d", tc.size, got, tc.log)
		}
		if argv := bundle.ZstdCommand(19, got)(tc.size); !slices.Contains(argv, tc.flag) || !slices.Contains(argv, "-19") {
			t.Errorf("a frame of %d bytes: %q", tc.size, argv)
		}
	}
	if bundle.DefaultWindow != 8<<20 || bundle.MaxWindow != 1<<27 {
		t.Errorf("windows of %d and at most %d bytes", bundle.DefaultWindow, bundle.MaxWindow)
	}
}
