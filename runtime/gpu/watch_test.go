package gpu_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

func setUsed(t *testing.T, root string, n uint64) {
	t.Helper()
	p := filepath.Join(root, "sys/class/drm/renderD128/device/mem_info_vram_used")
	// Written beside and renamed, since a reader must not see it empty.
	if err := os.WriteFile(p+".new", []byte(strconv.FormatUint(n, 10)+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p+".new", p); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	root := sysroot.Write(t, "rx7900xtx", nil)
	fs := gpu.NewFS(root)
	devices, err := fs.Devices()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	samples := fs.Watch(ctx, devices, time.Millisecond)
	if s := <-samples; s.Err != nil || s.VRAMUsed != 1306214400 || s.VRAMFree() != s.VRAMTotal-s.VRAMUsed || s.PCI != "0000:03:00.0" {
		t.Fatalf("first sample %+v", s)
	}
	setUsed(t, root, 4<<30)
	for s := range samples {
		if s.VRAMUsed == 4<<30 {
			break
		}
	}
	// The card is unplugged: samples say so and go on.
	if err := os.RemoveAll(filepath.Join(root, "sys/class/drm/renderD128")); err != nil {
		t.Fatal(err)
	}
	for s := range samples {
		if s.Err != nil {
			if !errors.Is(s.Err, os.ErrNotExist) {
				t.Errorf("error %v", s.Err)
			}
			break
		}
	}
	cancel()
	for range samples { // ends because the channel is closed
	}
}

func TestWaitVRAMFree(t *testing.T) {
	root := sysroot.Write(t, "rx7900xtx", nil)
	fs := gpu.NewFS(root)
	devices, err := fs.Devices()
	if err != nil {
		t.Fatal(err)
	}
	s, err := fs.WaitVRAMFree(t.Context(), devices[0], time.Millisecond, 16<<20)
	if err != nil || s.VRAMUsed != 1306214400 {
		t.Errorf("stable at %d, %v", s.VRAMUsed, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := fs.WaitVRAMFree(ctx, devices[0], time.Millisecond, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(root, "sys/class/drm")); err != nil {
		t.Fatal(err)
	}
	if _, err := fs.WaitVRAMFree(t.Context(), devices[0], time.Millisecond, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("with the card gone: %v", err)
	}
}
