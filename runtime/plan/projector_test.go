package plan

import (
	"math"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// TestProjectorBytes compares the estimate with the figures that llama.cpp v0.5.0's
// llama-server printed for sparse projectors of these shapes ("estimated worst-case
// memory usage of mmproj", -lv 4, --device none): weights and graph, in MiB.
func TestProjectorBytes(t *testing.T) {
	for name, c := range map[string]struct {
		width, feed, side, patch, heads, out uint32
		class, noFlash                       bool
		weights, said                        float64
	}{
		"gemma 3's":             {width: 1152, feed: 4304, side: 896, patch: 14, heads: 16, out: 2560, weights: 810.50, said: 931.75},
		"gemma 3's, half side":  {width: 1152, feed: 4304, side: 448, patch: 14, heads: 16, out: 2560, weights: 797.00, said: 841.94},
		"narrow":                {width: 768, feed: 3072, side: 896, patch: 14, heads: 12, out: 2560, weights: 179.08, said: 263.08},
		"thin feed":             {width: 1152, feed: 2304, side: 896, patch: 14, heads: 16, out: 2560, weights: 146.72, said: 236.72},
		"thinner feed":          {width: 1152, feed: 1152, side: 896, patch: 14, heads: 16, out: 2560, weights: 116.32, said: 206.32},
		"llava 1.5's":           {width: 1024, feed: 4096, side: 336, patch: 14, heads: 16, out: 4096, class: true, weights: 596.61, said: 618.16},
		"larger pictures":       {width: 1024, feed: 4096, side: 672, patch: 14, heads: 16, out: 4096, class: true, weights: 194.50, said: 280.69},
		"small output":          {width: 1024, feed: 4096, side: 672, patch: 14, heads: 16, out: 1024, class: true, weights: 158.48, said: 235.69},
		"small output and feed": {width: 1024, feed: 2048, side: 672, patch: 14, heads: 16, out: 1024, class: true, weights: 110.42, said: 169.63},
		"without flash":         {width: 768, feed: 3072, side: 896, patch: 14, heads: 12, out: 2560, noFlash: true, weights: 179.08, said: 1019.08},
		"llava without flash":   {width: 1024, feed: 4096, side: 672, patch: 14, heads: 16, out: 1024, class: true, noFlash: true, weights: 158.48, said: 532.96},
	} {
		t.Run(name, func(t *testing.T) {
			b := ggufgen.New("clip")
			for key, v := range map[string]uint32{
				"image_size": c.side, "patch_size": c.patch, "embedding_length": c.width, "feed_forward_length": c.feed,
				"attention.head_count": c.heads, "projection_dim": c.out,
			} {
				b.Uint("clip.vision."+key, v)
			}
			if c.class {
				b.Tensor("v.class_embd", gguf.F32, nil, uint64(c.width))
			}
			f := reopen(t, b)
			got := float64(projectorBytes(f, !c.noFlash)-f.TensorBytes())/MiB + c.weights
			if math.Abs(got-c.said) > 0.05*c.said {
				t.Errorf("%.1f MiB, llama-server said %.1f", got, c.said)
			}
		})
	}
	sound := ggufgen.New("clip")
	sound.Uint("clip.audio.embedding_length", 1280)
	sound.Tensor("a.position_embd.weight", gguf.F32, nil, 1280, 1500)
	if f := reopen(t, sound); projectorBytes(f, true) != f.TensorBytes() {
		t.Errorf("sound: %d bytes", projectorBytes(f, true))
	}
	huge := ggufgen.New("clip")
	for _, key := range []string{"image_size", "embedding_length", "feed_forward_length", "attention.head_count"} {
		huge.Uint("clip.vision."+key, math.MaxUint32)
	}
	huge.Uint("clip.vision.patch_size", 1)
	if got := projectorBytes(reopen(t, huge), false); got < 1<<50 {
		t.Errorf("a hostile file needs only %d bytes", got)
	}
}

func reopen(t *testing.T, b *ggufgen.Builder) *gguf.File {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "mmproj.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.WriteSparse(out); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}
