package deb

import (
	"bytes"
	"compress/gzip"
	"errors"
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

// An entry that is not later than the entry below it is rejected, with the setting that
// changes its date.
func TestChangelogDateMustBeLaterThanTheEntryBelow(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		version string
		epoch   string
		ok      bool
	}{
		{"0.1.0+llama.0.5.0", "2026-09-28T00:00:00Z", true}, // the newest entry itself
		{"0.2.0+llama.0.5.0", "2026-09-28T00:00:00Z", false},
		{"0.2.0-rc.1", "2026-11-23T00:00:00Z", false},
		{"0.2.0", "2026-11-23T00:00:01Z", true},
	} {
		epoch, err := time.Parse(time.RFC3339, tc.epoch)
		if err != nil {
			t.Fatal(err)
		}
		err = CheckChangelogDate(Options{Version: tc.version, Epoch: epoch})
		if (err == nil) != tc.ok || err != nil && (!errors.Is(err, ErrOptions) || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH")) {
			t.Errorf("%s at %s: %v", tc.version, tc.epoch, err)
		}
	}
}
