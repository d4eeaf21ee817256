package deb

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"
)

// If the changelog asset begins with the version, the result has one entry for it,
// with the date of the build.
func TestChangelogCompletesTheNewestEntry(t *testing.T) {
	t.Parallel()
	packed, err := commandChangelog(Options{Maintainer: "A <a@example.org>", Epoch: time.Unix(1790556072, 0).UTC()},
		Version{Core: "0.1.0", Metadata: "llama.0.5.0", Revision: "1"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	if !strings.HasPrefix(text, "go-rocm (0.1.0+llama.0.5.0-1) unstable;") || strings.Count(text, "\n -- ") != 1 {
		t.Errorf("got\n%s", text)
	}
	if !strings.Contains(text, "* First release") || !strings.HasSuffix(text, " -- A <a@example.org>  Mon, 28 Sep 2026 00:41:12 +0000\n") {
		t.Errorf("got\n%s", text)
	}
}
