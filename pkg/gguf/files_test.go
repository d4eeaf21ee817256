package gguf_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

func store(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

// fifo creates a FIFO, which blocks an open until another process opens it for writing.
func fifo(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := mkfifo(path); err != nil {
		t.Fatal(err)
	}
}

// part builds part no (from 0) of count with one tensor.
func part(no, count, tensors uint32, tensor string) *raw {
	r := file(3, 1, 4)
	r.key("general.architecture", gguf.String).text("llama")
	r.key("split.no", gguf.Uint16).u8(uint8(no)).u8(0)
	r.key("split.count", gguf.Uint16).u8(uint8(count)).u8(0)
	r.key("split.tensors.count", gguf.Int32).u32(tensors)
	return r.tensor(tensor, gguf.F32, 0, 8).data(32)
}

func TestSplit(t *testing.T) {
	dir := t.TempDir()
	var size int64
	first := ""
	for i := range uint32(3) {
		b := part(i, 3, 3, fmt.Sprintf("t%d", i)).b
		p := store(t, dir, fmt.Sprintf("m-%05d-of-00003.gguf", i+1), b)
		size += int64(len(b))
		if i == 0 {
			first = p
		}
	}
	f, err := gguf.Open(first)
	if err != nil {
		t.Fatal(err)
	}
	if f.Parts() != 3 || f.Size() != size || len(f.Tensors()) != 3 || f.Parameters() != 24 {
		t.Errorf("parts %d, size %d, tensors %d", f.Parts(), f.Size(), len(f.Tensors()))
	}
	if e, ok := f.Tensor("t2"); !ok || e.Part != 2 {
		t.Errorf("tensor of the last part: %+v", e)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, err = gguf.Open(filepath.Join(dir, "m-00002-of-00003.gguf"))
	if !errors.Is(err, gguf.ErrSplit) || !strings.Contains(err.Error(), "m-00001-of-00003.gguf") {
		t.Errorf("second part: %v", err)
	}
}

func TestSplitErrors(t *testing.T) {
	for name, c := range map[string]struct {
		first, second *raw
		firstName     string
		want          string
	}{
		"a part is missing":        {part(0, 2, 2, "a"), nil, "", "no such file"},
		"parts of another model":   {part(0, 2, 2, "a"), part(0, 2, 2, "b"), "", "is part 1, want part 2"},
		"another count":            {part(0, 2, 2, "a"), part(1, 3, 2, "b"), "", "3 parts"},
		"a tensor twice":           {part(0, 2, 2, "a"), part(1, 2, 2, "a"), "", "in two parts"},
		"a tensor is missing":      {part(0, 2, 5, "a"), part(1, 2, 5, "b"), "", "5 tensors expected, 2 found"},
		"a part is garbage":        {part(0, 2, 2, "a"), &raw{[]byte("nothing")}, "", "not a GGUF file"},
		"the name says no numbers": {part(0, 2, 2, "a"), nil, "m.gguf", "its name is not NAME-00001"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.firstName == "" {
				c.firstName = "m-00001-of-00002.gguf"
			}
			p := store(t, dir, c.firstName, c.first.b)
			if c.second != nil {
				store(t, dir, "m-00002-of-00002.gguf", c.second.b)
			}
			if _, err := gguf.Open(p); !errors.Is(err, gguf.ErrSplit) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := gguf.Open(t.TempDir()); !errors.Is(err, gguf.ErrNotGGUF) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := gguf.Open(filepath.Join(t.TempDir(), "absent.gguf")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe.gguf")
	fifo(t, pipe)
	if _, err := gguf.Open(pipe); !errors.Is(err, gguf.ErrNotGGUF) || !strings.Contains(err.Error(), pipe) {
		t.Errorf("a FIFO: %v", err)
	}
	p := store(t, t.TempDir(), "closed.gguf", sample().b)
	f, err := gguf.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	a, err := f.Array("tokenizer.ggml.tokens")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range a.Strings() {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("array of a closed file: %v", err)
		}
	}
}

func TestModelInfo(t *testing.T) {
	f := sample().mustRead(t)
	tok, err := f.Tokenizer()
	if err != nil || tok != (gguf.Tokenizer{Model: "gpt2", Kind: "BPE", Size: 3}) {
		t.Errorf("tokenizer %+v, %v", tok, err)
	}
	if id, ok, err := f.SpecialToken("eos"); id != 2 || !ok || err != nil {
		t.Errorf("eos %d, %v, %v", id, ok, err)
	}
	if _, _, err := f.SpecialToken("bos"); !errors.Is(err, gguf.ErrMalformed) {
		t.Errorf("bos past the vocabulary: %v", err)
	}
	if _, ok, err := f.SpecialToken("eot"); ok || err != nil {
		t.Errorf("eot: %v, %v", ok, err)
	}
	if f.Architecture() != "llama" || f.Name() != "sample" || f.Kind() != "model" || f.BlockCount() != 2 || f.ContextLength() != 0 {
		t.Errorf("facts of the sample: %q %q %q", f.Architecture(), f.Name(), f.Kind())
	}
	if f.Quantisation() != "F32" || f.QuantBits() != 32 || f.QuantGroup() != 0 {
		// 128 bytes of F32 are more than 102 of Q8_0.
		t.Errorf("quantisation %s, %d bits, group %d", f.Quantisation(), f.QuantBits(), f.QuantGroup())
	}
}

// TestKnownModels compares the facts of real shapes with published figures.
func TestKnownModels(t *testing.T) {
	want := map[string]struct {
		billions float64
		bits     int
		group    int
	}{
		"qwen3-8b-Q4_K_M":         {8.19, 4, 256},
		"qwen3-8b-Q8_0":           {8.19, 8, 32},
		"llama3-8b-Q4_K_M":        {8.03, 4, 256},
		"llama3-70b-Q4_K_M":       {70.55, 4, 256},
		"gemma3-4b-Q4_K_M":        {3.88, 4, 256},
		"gemma3-270m-Q8_0":        {0.268, 8, 32},
		"smollm2-135m-Q8_0":       {0.1345, 8, 32},
		"mixtral-8x7b-Q4_K_M":     {46.70, 4, 256},
		"qwen2.5-7b-Q4_K_M":       {7.62, 4, 256},
		"qwen3-30b-a3b-Q4_K_M":    {30.53, 4, 256},
		"gemma2-9b-Q4_K_M":        {9.24, 4, 256},
		"gpt-oss-20b-MXFP4":       {20.91, 4, 32},
		"deepseek-v2-lite-Q4_K_M": {15.71, 4, 256},
		"phi3-mini-Q4_K_M":        {3.82, 4, 256},
		"starcoder2-7b-Q4_K_M":    {7.17, 4, 256},
		"command-r7b-Q4_K_M":      {8.03, 4, 256},
		"mamba-2.8b-Q4_K_M":       {2.77, 4, 256},
		"mamba2-2.7b-Q4_K_M":      {2.70, 4, 256},
		"falcon-h1-7b-Q4_K_M":     {7.59, 4, 256},
		"lfm2-1.2b-Q4_K_M":        {1.17, 4, 256},
		"granite4-h-tiny-Q4_K_M":  {6.94, 4, 256},
		"qwen3-next-80b-Q4_K_M":   {79.67, 4, 256},
	}
	dir := t.TempDir()
	for _, k := range ggufgen.Catalogue() {
		w, ok := want[k.ID()]
		if !ok {
			t.Errorf("no published size for %s", k.ID())
			continue
		}
		p := filepath.Join(dir, k.ID()+".gguf")
		h, err := os.Create(p)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.Builder().WriteSparse(h); err != nil {
			t.Fatal(err)
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Open(p)
		if err != nil {
			t.Errorf("%s: %v", k.ID(), err)
			continue
		}
		if got := float64(f.Parameters()) / 1e9; got < w.billions*0.995 || got > w.billions*1.005 {
			t.Errorf("%s: %.3f billion parameters, published %.3f", k.ID(), got, w.billions)
		}
		if f.QuantBits() != w.bits || f.QuantGroup() != w.group || f.Architecture() != k.Arch {
			t.Errorf("%s: %d bits in groups of %d, %s", k.ID(), f.QuantBits(), f.QuantGroup(), f.Architecture())
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestDiscover(t *testing.T) {
	dir := t.TempDir()
	store(t, dir, "a/sample.GGUF", sample().b)
	store(t, dir, "a/broken.gguf", []byte("GGUF\x03"))
	store(t, dir, "a/notes.txt", []byte("no model"))
	store(t, dir, "b/m-00001-of-00002.gguf", part(0, 2, 2, "x").b)
	store(t, dir, "b/m-00002-of-00002.gguf", part(1, 2, 2, "y").b)
	store(t, dir, "b/lost-00003-of-00003.gguf", part(2, 3, 3, "z").b) // without the first part
	store(t, dir, "b/lost-00002-of-00003.gguf", part(1, 3, 3, "y").b)
	store(t, dir, "vocab.gguf", file(3, 0, 1).key("general.architecture", gguf.String).text("llama").b)
	store(t, dir, "hf [x]/config.json", []byte(`{"model_type":"qwen3","max_position_embeddings":40960,"torch_dtype":"bfloat16"}`))
	store(t, dir, "hf [x]/model-1.safetensors", make([]byte, 10))
	store(t, dir, "hf [x]/model-2.safetensors", make([]byte, 5))
	store(t, dir, "bad/config.json", []byte(`{`))
	store(t, dir, "bad/model.safetensors", nil)
	store(t, dir, "loose/model.safetensors", nil) // no config.json: no model
	store(t, dir, "hung/model.safetensors", nil)
	fifo(t, filepath.Join(dir, "hung/config.json"))
	fifo(t, filepath.Join(dir, "a/pipe.gguf"))
	got := map[string]gguf.Found{}
	broken := 0
	for f := range gguf.Discover(t.Context(), dir) {
		rel, err := filepath.Rel(dir, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Err != nil {
			broken++
			f = gguf.Found{Err: errors.New("failed")}
		}
		f.Path = ""
		got[rel] = f
	}
	want := map[string]gguf.Found{
		"a/sample.GGUF":              {Format: "gguf", Kind: "model", Name: "sample", Architecture: "llama", SizeClass: "128", Quantisation: "F32", QuantBits: 32, Parameters: 128, Bytes: int64(len(sample().b)), Files: 1},
		"b/m-00001-of-00002.gguf":    {Format: "gguf", Kind: "model", Architecture: "llama", SizeClass: "16", Quantisation: "F32", QuantBits: 32, Parameters: 16, Bytes: 2 * int64(len(part(0, 2, 2, "x").b)), Files: 2},
		"vocab.gguf":                 {Format: "gguf", Kind: "vocabulary", Architecture: "llama", Bytes: 69, Files: 1},
		"hf [x]":                     {Format: "safetensors", Kind: "model", Name: "hf [x]", Architecture: "qwen3", Quantisation: "bfloat16", ContextLength: 40960, Bytes: 15, Files: 2},
		"a/broken.gguf":              {Err: errors.New("failed")},
		"bad":                        {Err: errors.New("failed")},
		"a/pipe.gguf":                {Err: errors.New("failed")},
		"b/lost-00002-of-00003.gguf": {Err: errors.New("failed")},
		"hung":                       {Err: errors.New("failed")},
	}
	same := cmp.Comparer(func(a, b error) bool { return (a == nil) == (b == nil) })
	if d := cmp.Diff(want, got, same); d != "" {
		t.Errorf("models (-want +got):\n%s", d)
	}
	n := 0
	for range gguf.Discover(t.Context(), dir) {
		n++
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range gguf.Discover(ctx, dir) {
		n++
	}
	if n != 1 || broken != 5 {
		t.Errorf("%d models after a break and with an ended context, %d broken", n, broken)
	}
	for f := range gguf.Discover(t.Context(), filepath.Join(dir, "absent")) {
		if !errors.Is(f.Err, os.ErrNotExist) {
			t.Errorf("absent directory: %v", f.Err)
		}
	}
}

// The directory that is asked for, and those in it, may be links, as in caches of
// models; links below are not followed, so that one to a directory above ends.
func TestDiscoverFollowsLinks(t *testing.T) {
	dir := t.TempDir()
	store(t, dir, "real/sample.gguf", sample().b)
	store(t, dir, "store/below/x.txt", nil)
	for link, to := range map[string]string{
		"link": "store", "store/linked": "../real", "store/up": "..", "store/below/linked": "../../real", "store/file.gguf": "../real/sample.gguf", "store/gone.gguf": "nowhere",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for f := range gguf.Discover(t.Context(), filepath.Join(dir, "link")) {
		rel, err := filepath.Rel(dir, f.Path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Err != nil {
			rel += ": failed"
		}
		got = append(got, rel)
	}
	want := []string{
		"link/file.gguf", "link/gone.gguf: failed", "link/linked/sample.gguf",
		"link/up/real/sample.gguf", "link/up/store/file.gguf", "link/up/store/gone.gguf: failed",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
