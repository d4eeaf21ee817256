//go:build linux

package pull_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
)

func newReader(b []byte) io.ReadSeeker { return bytes.NewReader(b) }

func fileTime(t *testing.T, path string) time.Time {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.ModTime()
}

// catalogue writes models of ggufgen's catalogue, without weights, as o/real.
func catalogue(t *testing.T, h *fakehub.Hub, ids ...string) {
	t.Helper()
	dir := filepath.Join(h.Dir, "o", "real")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, k := range ggufgen.Catalogue() {
		for _, id := range ids {
			if k.ID() != id {
				continue
			}
			written, err := fitcheck.Write(dir, k)
			if err == nil {
				err = os.Rename(written, filepath.Join(dir, id+".gguf"))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func simulated(t *testing.T, vram, ram uint64) *machine.Machine {
	t.Helper()
	m := machine.New(machine.Config{SysRoot: t.TempDir()})
	m.HostMemory = ram
	if vram > 0 {
		if err := m.Simulate(gfx.GFX1101, vram); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// The largest quantisation that fits on the card is chosen, from headers alone.
func TestFindChoosesForTheCard(t *testing.T) {
	h := fakehub.Start(t)
	catalogue(t, h, "qwen3-8b-Q4_K_M", "qwen3-8b-Q8_0", "llama3-70b-Q4_K_M")
	if err := os.Rename(filepath.Join(h.Dir, "o/real/llama3-70b-Q4_K_M.gguf"), filepath.Join(h.Dir, "o/real/big-Q6_K.gguf")); err != nil {
		t.Fatal(err)
	}
	const gib = 1 << 30
	ref, err := modelref.Parse("hf:o/real")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		vram uint64
		want string
		why  string
	}{
		"16 GiB":  {16 * gib, "hf:o/real:Q8_0", "the largest of 3 quantisations that fits"},
		"8 GiB":   {8 * gib, "hf:o/real:Q4_K_M", "the largest of 3 quantisations that fits"},
		"64 GiB":  {64 * gib, "hf:o/real:Q6_K", "the largest of 3 quantisations that fits"},
		"2 GiB":   {2 * gib, "hf:o/real:Q4_K_M", "none fits on the GPU"},
		"no card": {0, "hf:o/real:Q4_K_M", "there is no GPU"},
	} {
		p := newPuller(t, h)
		p.Machine, p.Options = simulated(t, c.vram, 64*gib), plan.Options{Context: 4096}
		got, err := p.Find(t.Context(), ref)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Record.Name != c.want || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %s, %q; want %s, %q", name, got.Record.Name, got.Why, c.want, c.why)
		}
	}
	if n := h.Served(); n > 400<<20 {
		t.Errorf("%d MiB were sent for headers", n>>20)
	}
}

// A model that cannot be loaded ends the pull before its weights come.
func TestPullStopsWhatDoesNotFit(t *testing.T) {
	h := fakehub.Start(t)
	catalogue(t, h, "llama3-70b-Q4_K_M")
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	p.Machine = simulated(t, 8<<30, 16<<30)
	if r, err := pullRef(t, p, s, "hf:o/real:Q4_K_M"); !errors.Is(err, plan.ErrDoesNotFit) || !strings.Contains(err.Error(), "hf:o/real:Q4_K_M") {
		t.Errorf("%+v, %v", r, err)
	}
	if n := h.Served(); n > 64<<20 {
		t.Errorf("%d MiB were sent", n>>20)
	}
	ref, err := modelref.Parse("hf:o/real")
	if err != nil {
		t.Fatal(err)
	}
	p.Machine = simulated(t, 64<<30, 64<<30)
	found, err := p.Find(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	made, err := p.Plan(t.Context(), found)
	if err != nil || !made.Fits {
		t.Errorf("%+v, %v", made, err)
	}
}
