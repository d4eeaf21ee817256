package deb

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"
	"time"
)

// A version that the history already begins with has one entry, dated by the
// build: two entries would have to be in the order of their dates.
func TestChangelogOfTheNewestVersion(t *testing.T) {
	packed, err := changelog(Options{Maintainer: "A <a@example.org>", Epoch: time.Unix(1790556072, 0).UTC()},
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
