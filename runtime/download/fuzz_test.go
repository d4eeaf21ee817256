package download

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A range that is accepted lies within its file.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-63/500", "bytes */500", "", "bytes 5-1/9", "bytes 0-9223372036854775807/9223372036854775807", "bytes -1-2/3", "Bytes 0-0/1", "bytes 1-2/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, last, total, err := parseContentRange(s)
		if err == nil && (first < 0 || first > last || last >= total) {
			t.Errorf("%q: %d-%d/%d", s, first, last, total)
		}
	})
}

func FuzzRetryAfter(f *testing.F) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, s := range []string{"", "7", "-1", "99999999999", "Fri, 02 Jan 2026 03:05:05 GMT", "Fri, 02 Jan 2020 03:05:05 GMT"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d := retryAfter(http.Header{"Retry-After": {s}}, now); d < 0 {
			t.Errorf("%q: %s", s, d)
		}
	})
}

// The file of a state may have any content: a state that is accepted fits the file.
func FuzzState(f *testing.F) {
	for _, s := range []string{"", "{}", `{"url":"u","size":100,"etag":"\"a\"","chunk":64,"done":"Aw=="}`, `{"url":"u","size":100,"etag":"x","chunk":64,"done":""}`, `{"url":"u","size":-1,"chunk":0}`} {
		f.Add(s)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, s string) {
		file, err := os.Create(filepath.Join(dir, "partial"))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		dst := Target{File: file, StatePath: filepath.Join(dir, "state")}
		if err := file.Truncate(100); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dst.StatePath, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := loadState(Source{URL: "u", Size: -1}, dst, 64)
		if err != nil {
			t.Fatal(err)
		}
		if n := got.bytes(); n < 0 || n > 100 || got.prefix() > n || got.missing() > 2 {
			t.Errorf("%q: %+v", s, got)
		}
		if n := got.bytes(); n > 0 && got.Size != 100 {
			t.Errorf("%q: %+v", s, got)
		}
	})
}

// A login is only that of its own machine, whatever the file looks like.
func FuzzNetrc(f *testing.F) {
	for _, s := range []string{"", "machine", "machine a login b password c", "default login b", "login x machine y", "machine a macdef init\nlogin b\n\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, l := range parseNetrc(s) {
			if l.machine != "" && !strings.Contains(s, l.machine) {
				t.Errorf("%q: %+v", s, l)
			}
		}
		if u, err := url.Parse(s); err == nil && strings.Contains(withoutQuery(u), "?") && !strings.Contains(u.Path, "?") {
			t.Errorf("%q", withoutQuery(u))
		}
	})
}
