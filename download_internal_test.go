//go:build linux

package rocm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// What belongs to a model of the store is used with it, unless the settings say
// otherwise.
func TestFilesOfStoredModelsAreUsed(t *testing.T) {
	t.Setenv(modelstore.EnvDir, filepath.Join(t.TempDir(), "store"))
	s, err := modelstore.Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	w, err := s.Write(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := modelstore.Record{Name: "oci:r.test/m:latest"}
	for _, f := range []modelstore.File{
		{Name: "model.gguf", Role: modelstore.RoleModel},
		{Name: "mmproj.gguf", Role: modelstore.RoleProjector},
		{Name: "adapter-1.gguf", Role: modelstore.RoleAdapter},
		{Name: "adapter-2.gguf", Role: modelstore.RoleAdapter},
		{Name: "template.jinja", Role: modelstore.RoleTemplate},
	} {
		path := filepath.Join(t.TempDir(), f.Name)
		if err = os.WriteFile(path, []byte(f.Name), 0o600); err == nil {
			f.SHA256, f.Size, _, err = w.Adopt(t.Context(), path, "")
		}
		if err != nil {
			t.Fatal(err)
		}
		r.Files = append(r.Files, f)
	}
	stored, err := w.Put(r)
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	path := func(i int) string { return s.Path(stored, stored.Files[i]) }
	var alone, own Settings
	own.Projector, own.Adapters, own.ChatTemplateFile = "p", []string{"a"}, "t"
	for _, settings := range []*Settings{&alone, &own} {
		if err := settings.useStore(t.Context(), "oci:r.test/m"); err != nil {
			t.Fatal(err)
		}
	}
	if alone.Projector != path(1) || !slices.Equal(alone.Adapters, []string{path(2), path(3)}) || alone.ChatTemplateFile != path(4) {
		t.Errorf("%q %q %q", alone.Projector, alone.Adapters, alone.ChatTemplateFile)
	}
	if own.Projector != "p" || !slices.Equal(own.Adapters, []string{"a"}) || own.ChatTemplateFile != "t" {
		t.Errorf("%q %q %q", own.Projector, own.Adapters, own.ChatTemplateFile)
	}
}
