package plan

import (
	"bytes"
	"io"
	"os"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// FuzzMake plans models with arbitrary metadata. Make must not panic or search
// without end, and its figures must be consistent.
func FuzzMake(f *testing.F) {
	for _, k := range ggufgen.Catalogue() {
		// The seeds are the headers of the catalogue without their data; holes
		// supplies the data.
		h, err := os.CreateTemp(f.TempDir(), "seed")
		if err != nil {
			f.Fatal(err)
		}
		if _, err := k.Builder().WriteSparse(h); err != nil {
			f.Fatal(err)
		}
		m, err := gguf.NewReader(h, size64(f, h))
		if err != nil {
			f.Fatal(err)
		}
		head := make([]byte, m.DataOffset())
		if _, err := h.ReadAt(head, 0); err != nil {
			f.Fatal(err)
		}
		f.Add(head, uint64(16<<30), uint8(4), uint16(0))
		f.Add(head, uint64(1<<30), uint8(1), uint16(4096))
		if err := h.Close(); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, head []byte, free uint64, slots uint8, context uint16) {
		m, err := gguf.NewReader(holes{bytes.NewReader(head)}, 1<<45)
		if err != nil {
			return
		}
		free %= 1 << 40
		device := gpu.Device{Target: gfx.GFX1100, VRAMTotal: free, Visible: true}
		o := Options{Slots: int(slots), Context: int(context), Overcommit: true}
		p, err := Make(Request{Model: m, Devices: []gpu.Device{device}, BundleTargets: []gfx.Target{gfx.GFX1100}, HostTotal: 64 << 30, Options: o})
		if err != nil {
			return
		}
		if p.Layers < 0 || p.Layers > p.TotalLayers || p.WholeLayers > p.Layers || p.Devices[0].Layers+p.Host.Layers != p.TotalLayers {
			t.Fatalf("%d layers, %d whole, of %d: %+v %+v", p.Layers, p.WholeLayers, p.TotalLayers, p.Devices[0], p.Host)
		}
		if e := p.Devices[0]; p.Layers > 0 && (e.Used() > e.Free || p.Overfull) {
			t.Fatalf("%d layers need %d of %d free", p.Layers, e.Used(), e.Free)
		}
	})
}

// holes returns zeros for some bytes past the end, like the data of a sparse
// file. Later reads fail, so that the fuzzer does not spend time on zeros.
type holes struct{ r *bytes.Reader }

func (h holes) ReadAt(p []byte, off int64) (int, error) {
	if off > h.r.Size()+1<<20 {
		return 0, io.ErrUnexpectedEOF
	}
	n := 0
	if off < h.r.Size() {
		var err error
		if n, err = h.r.ReadAt(p, off); n == 0 && err != nil {
			return 0, err
		}
	}
	clear(p[n:])
	return len(p), nil
}

func size64(f *testing.F, h *os.File) int64 {
	info, err := h.Stat()
	if err != nil {
		f.Fatal(err)
	}
	return info.Size()
}
