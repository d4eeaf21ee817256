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

func TestFindModel(t *testing.T) {
	for name, c := range map[string]struct {
		files []string // of a directory; "/" at the end: a subdirectory
		want  string   // in that directory, or what the error says
		found bool
	}{
		"one model":             {[]string{"a.gguf", "readme.md"}, "a.gguf", true},
		"model and projector":   {[]string{"a.gguf", "mmproj-f16.gguf"}, "a.gguf", true},
		"split model":           {[]string{"a-00001-of-00002.gguf", "a-00002-of-00002.gguf"}, "a-00001-of-00002.gguf", true},
		"directory named model": {[]string{"a.gguf/", "b.gguf"}, "b.gguf", true},
		"several":               {[]string{"b.gguf", "a.gguf"}, "several models (a.gguf, b.gguf); name one of them", false},
		"safetensors":           {[]string{"model.safetensors"}, "convert_hf_to_gguf.py", false},
		"projector alone":       {[]string{"mmproj.gguf"}, "no .gguf file", false},
		"nothing":               {nil, "no .gguf file", false},
	} {
		dir := t.TempDir()
		for _, file := range c.files {
			path := filepath.Join(dir, file)
			var err error
			if strings.HasSuffix(file, "/") {
				err = os.Mkdir(path, 0o700)
			} else {
				err = os.WriteFile(path, nil, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		switch got, err := machine.FindModel(dir); {
		case c.found && (err != nil || got != filepath.Join(dir, c.want)):
			t.Errorf("%s: %q, %v; want %s", name, got, err, c.want)
		case !c.found && (!errors.Is(err, machine.ErrModelFile) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %q, %v; want ErrModelFile that says %q", name, got, err, c.want)
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
	old.Tensor("v.patch_embd.weight", gguf.F32, func(w io.Writer, size uint64) error {
		_, err := w.Write(make([]byte, size))
		return err
	}, 1)
	oldProjector := writeGGUF(t, filepath.Join(dir, "old.gguf"), old, nil)
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
		"directory, projector":  {model, plan.Options{Projector: dir}, "name the file"},
		"no such projector":     {model, plan.Options{Projector: absent}, "no such file"},
		"model as adapter":      {model, plan.Options{Adapters: []string{adapter, model}}, "not an adapter"},
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
