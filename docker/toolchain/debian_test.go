package toolchain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
)

// importer is an engine that creates an image from a stream without an error.
type importer struct {
	engine.Engine
	enough int64 // bytes after which it fails; 0: never
	made   string
	err    error
}

func (i *importer) Import(_ context.Context, _ string, rootfs io.Reader) (engine.Image, error) {
	if i.enough > 0 {
		_, err := io.CopyN(io.Discard, rootfs, i.enough)
		i.err = errors.Join(errors.New("disk is full"), err)
		return engine.Image{}, i.err
	}
	var b bytes.Buffer
	if _, i.err = io.Copy(&b, rootfs); i.err != nil {
		return engine.Image{}, i.err
	}
	i.made = b.String()
	return engine.Image{ID: "sha256:made"}, nil
}

// A stream that mmdebstrap does not complete does not become an image.
func TestMmdebstrapThatFailsMakesNoImage(t *testing.T) {
	for _, tc := range []struct {
		name, script string
		enough       int64
		want         string // part of the error; empty: an image of the text "root"
	}{
		{"well", "printf root", 0, ""},
		{"nothing written", "echo no such suite >&2; exit 1", 0, "mmdebstrap: exit status 1"},
		{"half of it written", "printf ro; exit 25", 0, "mmdebstrap: exit status 25"},
		{"killed", "printf root; kill -9 $$", 0, "mmdebstrap: signal: killed"},
		{"the engine gives up", "yes", 100000, "disk is full"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "mmdebstrap"), []byte("#!/bin/sh\necho begins >&2\n"+tc.script+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			var log bytes.Buffer
			eng := &importer{enough: tc.enough}
			img, err := Spec{Kind: "debian", Set: CPU, Suite: "forky"}.makeDebian(t.Context(), eng, "tag", &log)
			if !strings.Contains(log.String(), "toolchain: begins\n") {
				t.Errorf("its messages are not told: %q", log.String())
			}
			if tc.want == "" {
				if err != nil || img.ID != "sha256:made" || eng.made != "root" {
					t.Errorf("got %+v of %q, %v", img, eng.made, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if eng.err == nil || eng.made != "" {
				t.Errorf("an image was made of %q", eng.made)
			}
		})
	}
}

// The same within a container.
func TestMmdebstrapInAnImageThatFailsMakesNoImage(t *testing.T) {
	eng := &failing{err: fmt.Errorf("job mmdebstrap ended with status 25")}
	_, err := Spec{Kind: "debian", Set: CPU, MmdebstrapImage: "image"}.makeDebian(t.Context(), eng, "tag", io.Discard)
	if err == nil || !errors.Is(err, eng.err) || eng.made != "" || eng.importer.err == nil {
		t.Errorf("got %v, an image of %q", err, eng.made)
	}
}

// failing is an engine whose jobs fail.
type failing struct {
	importer
	err error
}

func (f *failing) Run(context.Context, engine.Job) error { return f.err }
