package toolchain

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// images is an engine with images: ids by reference, and the version of the one package of
// each.
type images struct {
	engine.Engine
	ids  map[string]string
	gccs map[string]string
}

func (e images) Image(_ context.Context, ref string) (engine.Image, error) {
	if id, ok := e.ids[ref]; ok {
		return engine.Image{ID: id}, nil
	}
	return engine.Image{}, fmt.Errorf("%w: %s", engine.ErrNoImage, ref)
}

func (e images) Files(_ context.Context, ref string) (engine.Files, error) {
	return record(e.gccs[ref]), nil
}

// record is the list of packages in an image.
type record string

func (record) Stat(context.Context, string) (engine.Entry, error) { return engine.Entry{}, nil }
func (record) Close() error                                       { return nil }

func (r record) Walk(_ context.Context, _ string, fn func(*tar.Header, io.Reader) error) error {
	return fn(&tar.Header{Typeflag: tar.TypeReg}, strings.NewReader("Package: gcc\nVersion: "+string(r)+"\nArchitecture: amd64\n"))
}

// Another cache may have created an image with the same name later, from a changed archive:
// results continue in the image in which they were started.
func TestEnsure(t *testing.T) {
	gccs := map[string]string{"sha256:first": "1", "sha256:same": "1", "sha256:other": "2"}
	for _, tc := range []struct {
		name string
		ids  map[string]string
		want string // the id to run in; empty: ChangedError
	}{
		{"as it was made", map[string]string{"tag": "sha256:first", "sha256:first": "sha256:first"}, "sha256:first"},
		{"the tag is another's, the image is there", map[string]string{"tag": "sha256:other", "sha256:first": "sha256:first"}, "sha256:first"},
		{"the image is there without a tag", map[string]string{"sha256:first": "sha256:first"}, "sha256:first"},
		{"made again with the same packages", map[string]string{"tag": "sha256:same"}, "sha256:same"},
		{"made again with other packages", map[string]string{"tag": "sha256:other"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			image := &Toolchain{Tag: "tag", ID: "sha256:first", Packages: []Package{{"gcc", "1", "amd64", ""}}}
			err := Ensure(t.Context(), images{ids: tc.ids, gccs: gccs}, Spec{}, image, io.Discard)
			var changed *ChangedError
			if errors.As(err, &changed) != (tc.want == "") || (err != nil) != (tc.want == "") {
				t.Fatalf("got %v", err)
			}
			if tc.want != "" && image.ID != tc.want {
				t.Errorf("jobs run in %s, want %s", image.ID, tc.want)
			}
		})
	}
}

// A locked build rejects a base image, which no lock covers.
func TestLockedBuildRejectsBaseImage(t *testing.T) {
	for _, s := range []Spec{{Kind: "debian", BaseImage: "somebody/rocm"}, {Kind: "amd"}, {Kind: "amd", BaseImage: "somebody/rocm"}} {
		s.Set, s.Locked = HIP, true
		cache, err := stage.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Describe(t.Context(), images{}, cache, s, io.Discard); err == nil || !strings.Contains(err.Error(), "unset GOROCM_LOCKED") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}
