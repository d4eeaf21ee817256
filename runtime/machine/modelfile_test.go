//go:build linux && amd64

package machine_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// writeGGUF writes what b builds and returns its path.
func writeGGUF(t *testing.T, path string, b *ggufgen.Builder, err error) string {
	t.Helper()
	if err == nil {
		err = b.WriteFile(path)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// writeModel writes the header of a model of the catalogue and as much space as its
// data takes.
func writeModel(t *testing.T, path, name string) string {
	t.Helper()
	known := ggufgen.Catalogue()
	i := slices.IndexFunc(known, func(k ggufgen.Known) bool { return k.Name == name })
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = known[i].Builder().WriteSparse(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

// A directory has one model, whatever the files beside it are called.
func TestFindModel(t *testing.T) {
	for name, c := range map[string]struct {
		files string // of a directory, as KIND:NAME
		want  string // in that directory, or what the error says
		found bool
	}{
		"one model":              {"model:a.gguf text:readme.md", "a.gguf", true},
		"capital letters":        {"model:a.GGUF", "a.GGUF", true},
		"model and projector":    {"model:a.gguf mmproj:mmproj-f16.gguf", "a.gguf", true},
		"projector behind":       {"model:a.gguf mmproj:a-mmproj-f16.gguf", "a.gguf", true},
		"projector of any name":  {"model:b.gguf mmproj:a.vision.gguf lora:a-lora.gguf vocabulary:v.gguf imatrix:i.gguf", "b.gguf", true},
		"model named projector":  {"model:mmproj-tuned.gguf", "mmproj-tuned.gguf", true},
		"unfinished download":    {"model:b.gguf noise:a.gguf", "b.gguf", true},
		"damaged alone":          {"noise:a.gguf mmproj:b.gguf", "a.gguf", true}, // OpenModel says why
		"directory named model":  {"dir:a.gguf model:b.gguf", "b.gguf", true},
		"several":                {"model:b.gguf model:a.gguf", "several models (a.gguf, b.gguf); name one of them", false},
		"safetensors":            {"text:model.safetensors", "convert_hf_to_gguf.py", false},
		"safetensors and config": {"text:model.safetensors config:config.json", "convert_hf_to_gguf.py", false},
		"projector alone":        {"mmproj:mmproj.gguf", "only mmproj.gguf, a file of kind \"mmproj\"", false},
		"damaged":                {"noise:a.gguf noise:b.gguf", "no model that can be read (a.gguf, b.gguf)", false},
		"second part alone":      {"model:a-00002-of-00002.gguf", "a-00002-of-00002.gguf", true}, // the same
		"nothing":                {"", "no .gguf file", false},
	} {
		dir := t.TempDir()
		for _, file := range strings.Fields(c.files) {
			kind, base, _ := strings.Cut(file, ":")
			writeKind(t, kind, filepath.Join(dir, base))
		}
		switch got, err := machine.FindModel(dir); {
		case c.found && (err != nil || got != filepath.Join(dir, c.want)):
			t.Errorf("%s: %q, %v; want %s", name, got, err, c.want)
		case !c.found && (!errors.Is(err, machine.ErrModelFile) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %q, %v; want ErrModelFile that says %q", name, got, err, c.want)
		}
	}
}

// writeKind writes a small file of a kind.
func writeKind(t *testing.T, kind, path string) {
	t.Helper()
	b := ggufgen.New("llama")
	var err error
	switch kind {
	case "model":
		b.Tensor("a", gguf.F32, zeros, 8)
	case "lora":
		b, err = ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
	case "mmproj":
		b, err = ggufgen.Projector(ggufgen.ProjectorOptions{})
	case "imatrix":
		b.Text("general.type", kind)
		b.Tensor("a", gguf.F32, zeros, 8)
	case "vocabulary":
	case "dir":
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		return
	default:
		if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	writeGGUF(t, path, b, err)
}

func zeros(w io.Writer, size uint64) error {
	_, err := w.Write(make([]byte, size))
	return err
}

// What a file is instead of a model decides what its user has to do.
func TestAdviceFitsTheFile(t *testing.T) {
	for name, c := range map[string]struct{ content, says string }{
		"empty":       {"", "an empty file; the download or the copy failed"},
		"zeros":       {"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", "begins with zeros; the download"},
		"HTML":        {"\n<!DOCTYPE html>\n<html>", "a web page; the server sent it instead of the model; download the file itself"},
		"HTML 2":      {"\ufeff<HTML lang=\"en\">", "a web page; "},
		"XML":         {"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code></Error>", "a web page; "},
		"JSON":        {"{\"error\":\"Invalid username or password.\"}", "a JSON file; the server sent it"},
		"git-lfs":     {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n", "git lfs pull"},
		"safetensors": {"\x10\x00\x00\x00\x00\x00\x00\x00{\"__metadata__\":{}}", "a safetensors file; convert the original with llama.cpp's convert_hf_to_gguf.py"},
		"zip":         {"PK\x03\x04archive/data.pkl", "a zip archive, as PyTorch writes checkpoints; convert the original"},
		"pickle":      {"\x80\x02}q\x00", "a Python pickle"},
		"gzip":        {"\x1f\x8b\x08\x00", "a compressed file; unpack it"},
		"zstd":        {"\x28\xb5\x2f\xfd\x00", "a compressed file; unpack it"},
		"tar":         {"model.gguf" + strings.Repeat("\x00", 247) + "ustar\x0000", "a tar archive; unpack it"},
		"before GGUF": {"tjgg\x03\x00\x00\x00", "before GGUF; download the model as GGUF"},
		"text":        {"no model", "begins with 0x6e6f206d; use a .gguf file"},
		"short":       {"GG", "2 bytes are too few"},
		"torn header": {"GGUF\x03\x00", "the file is not complete; download it again"},
		"obsolete":    {"GGUF\x01\x00\x00\x00", "version 1 is obsolete"},
	} {
		path := filepath.Join(t.TempDir(), "x.gguf")
		if err := os.WriteFile(path, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := machine.OpenModel(path)
		if !errors.Is(err, machine.ErrModelFile) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want ErrModelFile that says %q", name, err, c.says)
			continue
		}
		if n := strings.Count(err.Error(), path); n != 1 {
			t.Errorf("%s: %v; the path is in it %d times", name, err, n)
		}
	}
}

// A path is returned absolute, whether it is a model or not; opening it decides that.
func TestFindModelOfAPath(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("weights", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := machine.FindModel("weights"); err != nil || got != filepath.Join(dir, "weights") {
		t.Errorf("a relative path: %q, %v", got, err)
	}
	for path, says := range map[string]string{"": "the path is empty", "absent.gguf": "no such file"} {
		if got, err := machine.FindModel(path); !errors.Is(err, machine.ErrModelFile) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %q, %v; want ErrModelFile that says %q", path, got, err, says)
		}
	}
}

// Each kind of file is accepted in its own place, and an error says what it is instead.
func TestPlanChecksEachFile(t *testing.T) {
	dir := t.TempDir()
	model := writeModel(t, filepath.Join(dir, "model.gguf"), "smollm2-135m")
	draft := writeModel(t, filepath.Join(dir, "draft.gguf"), "smollm2-135m")
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	projector := writeGGUF(t, filepath.Join(dir, "mmproj.gguf"), b, err)
	b, err = ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
	adapter := writeGGUF(t, filepath.Join(dir, "lora.gguf"), b, err)
	old := ggufgen.New("clip") // a projector from before general.type
	old.Tensor("v.patch_embd.weight", gguf.F32, zeros, 1)
	oldProjector := writeGGUF(t, filepath.Join(dir, "old.gguf"), old, nil)
	b = ggufgen.New("qwen3")
	b.Text("general.type", "adapter")
	b.Tensor("a", gguf.F32, zeros, 8)
	other := writeGGUF(t, filepath.Join(dir, "other.gguf"), b, nil)
	vocabulary := writeGGUF(t, filepath.Join(dir, "vocab.gguf"), ggufgen.New("llama"), nil)
	noise := filepath.Join(dir, "noise.gguf")
	if err := os.WriteFile(noise, []byte("no model at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(dir, "absent.gguf")
	m := machine.New(machine.Config{SysRoot: sysRoot(t, "none")})
	for name, c := range map[string]struct {
		model string
		o     plan.Options
		says  string // by ErrModelFile; empty: no error
	}{
		"all of them":           {model, plan.Options{Projector: projector, Adapters: []string{adapter, adapter}, Draft: draft}, ""},
		"old projector":         {model, plan.Options{Projector: oldProjector}, ""},
		"no model":              {noise, plan.Options{}, "convert_hf_to_gguf.py"},
		"projector as model":    {projector, plan.Options{}, "Settings.Projector, --mmproj"},
		"old one as model":      {oldProjector, plan.Options{}, "is a projector"},
		"model as projector":    {model, plan.Options{Projector: draft}, "not a projector"},
		"noise as projector":    {model, plan.Options{Projector: noise}, "noise.gguf: not a GGUF file"},
		"directory, projector":  {model, plan.Options{Projector: dir}, "name the .gguf file in it"},
		"no such projector":     {model, plan.Options{Projector: absent}, "no such file"},
		"model as adapter":      {model, plan.Options{Adapters: []string{adapter, model}}, "not an adapter"},
		"adapter of another":    {model, plan.Options{Adapters: []string{other}}, "for models of the architecture \"qwen3\", and the model's is \"llama\""},
		"noise as adapter":      {model, plan.Options{Adapters: []string{noise}}, "convert_lora_to_gguf.py"},
		"directory as adapter":  {model, plan.Options{Adapters: []string{dir}}, "convert_lora_to_gguf.py"},
		"no such adapter":       {model, plan.Options{Adapters: []string{absent}}, "absent.gguf: no such file"},
		"adapter as model":      {adapter, plan.Options{}, "Settings.Adapters, --adapter"},
		"vocabulary as model":   {vocabulary, plan.Options{}, "a vocabulary without weights"},
		"projector as draft":    {model, plan.Options{Draft: projector}, "is a projector"},
		"no such draft":         {model, plan.Options{Draft: absent}, "no such file"},
		"several models, draft": {model, plan.Options{Draft: dir}, "several models"},
	} {
		p, err := m.Plan(c.model, c.o)
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (!errors.Is(err, machine.ErrModelFile) || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %+v, %v; want ErrModelFile that says %q", name, p, err, c.says)
		}
	}
}

// The child runs in another directory, so its arguments have absolute paths; the
// caller's options stay as they were.
func TestPlanMakesPathsAbsolute(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeModel(t, "model.gguf", "smollm2-135m")
	b, err := ggufgen.Adapter(ggufgen.TinyOptions{}, ggufgen.AdapterOptions{})
	writeGGUF(t, "lora.gguf", b, err)
	b, err = ggufgen.Projector(ggufgen.ProjectorOptions{})
	writeGGUF(t, "mmproj.gguf", b, err)
	o := plan.Options{Adapters: []string{"lora.gguf"}, Projector: "mmproj.gguf", Draft: "model.gguf"}
	p, err := machine.New(machine.Config{SysRoot: sysRoot(t, "none")}).Plan("model.gguf", o)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"model.gguf", "lora.gguf", "mmproj.gguf"} {
		if !slices.Contains(p.Args, filepath.Join(dir, name)) || slices.Contains(p.Args, name) {
			t.Errorf("%s is not absolute in %q", name, p.Args)
		}
	}
	if o.Adapters[0] != "lora.gguf" {
		t.Errorf("the caller's options became %+v", o)
	}
}
