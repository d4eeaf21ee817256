package toolchain

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// archive is an engine whose jobs end in a chosen way.
type archive struct {
	engine.Engine
	gives string
	err   error
	ran   []engine.Job
}

func (a *archive) Image(context.Context, string) (engine.Image, error) {
	return engine.Image{ID: "sha256:image"}, nil
}

func (a *archive) Run(_ context.Context, job engine.Job) error {
	a.ran = append(a.ran, job)
	if a.err != nil {
		return a.err
	}
	return job.Out[0].Read(&tar.Header{Typeflag: tar.TypeReg}, strings.NewReader(a.gives))
}

func TestFetch(t *testing.T) {
	const hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824" // sha256 of "hello"
	wanted := Package{Name: "llvm-21-dev", Version: "1:21.1.8-13", Arch: "amd64", SHA256: hello}
	unlocked := Package{Name: "llvm-21-dev", Version: "1:21.1.8-13", Arch: "amd64"}
	for _, tc := range []struct {
		name    string
		pkg     Package
		archive archive
		want    string // part of the error; "": none
	}{
		{"the locked one", wanted, archive{gives: "hello"}, ""},
		{"one without a lock", unlocked, archive{gives: "anything"}, ""},
		{"another content", wanted, archive{gives: "hell0"}, "locked is " + hello},
		{"no such version", wanted, archive{err: &engine.ExitError{Code: exitNotInArchive}}, "the archive has no llvm-21-dev 1:21.1.8-13 for amd64"},
		{"no network", wanted, archive{err: &engine.ExitError{Code: 100, LastLogs: []string{"cannot resolve"}}}, "cannot resolve"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cache, err := stage.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			image := &Toolchain{Tag: "toolchain", ID: "sha256:image"}
			for range 2 { // the second time from the cache, unless it failed
				res, err := Fetch(t.Context(), &tc.archive, cache, Spec{}, image, tc.pkg, io.Discard)
				if tc.want != "" {
					if err == nil || !strings.Contains(err.Error(), tc.want) {
						t.Fatalf("%v, want %q", err, tc.want)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				b, err := os.ReadFile(filepath.Join(res.Dir, FetchedPackage))
				if err != nil || string(b) != tc.archive.gives {
					t.Errorf("%q, %v", b, err)
				}
			}
			if runs := len(tc.archive.ran); (runs == 1) != (tc.want == "") {
				t.Errorf("%d jobs", runs)
			}
			if job := tc.archive.ran[0]; !job.Network || job.UID == 0 || job.CommitAs != "" {
				t.Errorf("the job must have a network, no root, and leave the image alone: %+v", job)
			}
			var gone *NotInArchiveError
			if _, err := Fetch(t.Context(), &tc.archive, cache, Spec{}, image, tc.pkg, io.Discard); errors.As(err, &gone) != (tc.name == "no such version") {
				t.Errorf("%v", err)
			}
		})
	}
}
