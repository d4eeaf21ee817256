package build

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/build/progress"
)

// closing is an engine that closes the reader of an import, as the HTTP transport does.
type closing struct {
	engine.Engine
	got string
}

func (c *closing) Import(_ context.Context, _ string, rootfs io.Reader) (engine.Image, error) {
	b, err := io.ReadAll(rootfs)
	if closer, ok := rootfs.(io.Closer); ok && err == nil {
		err = closer.Close()
	}
	c.got = string(b)
	return engine.Image{ID: "sha256:imported"}, err
}

// An import is reported once, although the engine closes its reader.
func TestImportIsReportedOnce(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	eng := &closing{}
	l := &lazyEngine{display: progress.New(out, t.TempDir()), eng: eng}
	img, err := l.Import(t.Context(), "tag", strings.NewReader("root"))
	if err != nil || img.ID != "sha256:imported" || eng.got != "root" {
		t.Fatalf("%+v of %q, %v", img, eng.got, err)
	}
	said, err := os.ReadFile(out.Name())
	if err != nil || strings.Count(string(said), "import tag: ") != 1 {
		t.Errorf("said %q, %v", said, err)
	}
}
