package build

import (
	"path/filepath"
	"testing"
)

// A layer of other code, or compressed by another release of what compresses it,
// is not taken from the cache.
func TestLayerInputs(t *testing.T) {
	s, d := session(t)
	p := packedBundle(t, "#!/bin/sh\n")
	seen := map[layerInputs]string{}
	for _, change := range []struct{ what, file, text string }{
		{"nothing", "go.mod", "require compress v1.17.0\n"},
		{"a module", "go.mod", "require compress v1.18.0\n"},
		{"the code", "packaging/oci/layer.go", "package oci\n"},
	} {
		put(t, filepath.Join(d.root, "packaging", "oci", "doc.go"), "package oci\n")
		put(t, filepath.Join(d.root, change.file), change.text)
		in, err := s.layerInputs(d.root, p)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[in]; ok {
			t.Errorf("a change of %s gives the same key as one of %s", change.what, other)
		}
		if in.Go == "" {
			t.Error("Go's release is not in the key")
		}
		seen[in] = change.what
	}
}
