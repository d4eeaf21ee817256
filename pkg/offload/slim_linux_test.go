package offload_test

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestSlimLeavesHoles(t *testing.T) {
	path := elfgen.WriteFile(t, "large.so", largeFat())
	full := blocks(t, path)
	if _, err := offload.Slim(path, []gfx.Target{gfx.GFX1100, gfx.GFX1101}); err != nil {
		t.Fatal(err)
	}
	if slim := blocks(t, path); slim > full-(8<<20) {
		t.Errorf("takes %d bytes on disk, %d before", slim, full)
	}
}

// A full disk must leave the old file unchanged and no other file. A limit on the size of
// files simulates it: the write fails in the middle, too.
func TestSlimOnFullDisk(t *testing.T) {
	if path := os.Getenv("OFFLOAD_SLIM_FULL"); path != "" {
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 4 << 20, Max: 4 << 20}); err != nil {
			t.Fatal(err)
		}
		_, err := offload.Slim(path, []gfx.Target{gfx.GFX1100, "gfx1030"})
		if !errors.Is(err, syscall.EFBIG) {
			t.Fatalf("got %v, want a write error", err)
		}
		return
	}
	path := elfgen.WriteFile(t, "large.so", largeFat())
	before := readFile(t, path)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSlimOnFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), "OFFLOAD_SLIM_FULL="+path)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Fatalf("%v\n%s", err, out)
	}
	if string(before) != string(readFile(t, path)) {
		t.Error("the file changed")
	}
	checkOnlyFile(t, path)
	if fi, err := os.Stat(filepath.Dir(path)); err != nil || !fi.IsDir() {
		t.Error(err)
	}
}
