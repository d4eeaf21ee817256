package hostrocm_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/hostrocm"
)

// cacheLine is an entry of a cache to write.
type cacheLine struct {
	flags  uint32
	hwcap  uint64
	soname string
	path   string
}

const amd64 = 0x0303

// writeCache writes an ld.so.cache as ldconfig does since glibc 2.32.
func writeCache(lines ...cacheLine) []byte {
	le := binary.LittleEndian
	b := []byte("glibc-ld.so.cache1.1")
	b = le.AppendUint32(b, uint32(len(lines)))
	var strs []byte
	base := uint32(48 + 24*len(lines))
	var entries []byte
	for _, l := range lines {
		entries = le.AppendUint32(entries, l.flags)
		entries = le.AppendUint32(entries, base+uint32(len(strs)))
		strs = append(append(strs, l.soname...), 0)
		entries = le.AppendUint32(entries, base+uint32(len(strs)))
		strs = append(append(strs, l.path...), 0)
		entries = le.AppendUint32(entries, 0)
		entries = le.AppendUint64(entries, l.hwcap)
	}
	b = le.AppendUint32(b, uint32(len(strs)))
	b = append(b, 2, 0, 0, 0)
	b = append(b, make([]byte, 16)...)
	return append(append(b, entries...), strs...)
}

// before232 prepends the table for older loaders.
func before232(b []byte) []byte {
	old := append([]byte("ld.so-1.7.0\x00"), 1, 0, 0, 0)
	old = append(old, make([]byte, 12)...)
	for len(old)%8 != 0 {
		old = append(old, 0)
	}
	return append(old, b...)
}

func TestParseLoaderCache(t *testing.T) {
	good := writeCache(
		cacheLine{amd64, 0, "libz.so.1", "/usr/lib/x86_64-linux-gnu/libz.so.1"},
		cacheLine{0x0003, 0, "libz.so.1", "/usr/lib32/libz.so.1"},
		cacheLine{amd64, 1 << 62, "libz.so.1", "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libz.so.1"},
		cacheLine{amd64, 0, "libx.so.1", "relative/libx.so.1"},
		cacheLine{amd64, 0, "libamdhip64.so.6", "/opt/rocm-6.4.1/lib//libamdhip64.so.6"},
	)
	want := []hostrocm.LoaderCacheEntry{
		{SONAME: "libz.so.1", Path: "/usr/lib/x86_64-linux-gnu/libz.so.1"},
		{SONAME: "libamdhip64.so.6", Path: "/opt/rocm-6.4.1/lib/libamdhip64.so.6"},
	}
	for name, b := range map[string][]byte{"new": good, "with the old table": before232(good)} {
		got, err := hostrocm.ParseLoaderCache(b)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	bigEndian := append([]byte(nil), good...)
	bigEndian[28] = 3
	many := append([]byte(nil), good...)
	binary.LittleEndian.PutUint32(many[20:], 1<<31)
	outside := append([]byte(nil), good...)
	binary.LittleEndian.PutUint32(outside[48+4:], uint32(len(outside)))
	long := writeCache(cacheLine{amd64, 0, "l", "/" + strings.Repeat("x", 5000)})
	for name, c := range map[string]struct {
		b    []byte
		says string
	}{
		"empty":        {nil, "does not start"},
		"other":        {[]byte(strings.Repeat("x", 100)), "does not start"},
		"head cut":     {good[:30], "does not start"},
		"entries cut":  {good[:100], "do not fit"},
		"strings cut":  {good[:len(good)-3], "does not end"},
		"too many":     {many, "do not fit"},
		"outside":      {outside, "a string begins at byte"},
		"big endian":   {bigEndian, "byte order"},
		"long string":  {long, "does not end"},
		"old alone":    {before232(nil), "does not start"},
		"old head cut": {before232(nil)[:13], "too few"},
		"old too many": {append([]byte("ld.so-1.7.0\x00"), 0xff, 0xff, 0xff, 0xff, 0, 0), "do not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := hostrocm.ParseLoaderCache(c.b); !errors.Is(err, hostrocm.ErrLoaderCache) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrLoaderCache with %q", err, c.says)
			}
		})
	}
}

// TestParseLoaderCacheOfThisMachine parses this machine's cache: each entry is a file
// that exists.
func TestParseLoaderCacheOfThisMachine(t *testing.T) {
	b, err := os.ReadFile("/etc/ld.so.cache")
	if err != nil {
		t.Fatal(err)
	}
	got, err := hostrocm.ParseLoaderCache(b)
	if err != nil || len(got) == 0 {
		t.Fatalf("%d entries, %v", len(got), err)
	}
	there := 0
	for _, e := range got {
		if _, err := os.Stat(e.Path); err == nil && strings.HasPrefix(filepath.Base(e.Path), "lib") {
			there++
		}
	}
	if there == 0 {
		t.Errorf("none of the %d entries is there, the first %+v", len(got), got[0])
	}
}

func FuzzParseCache(f *testing.F) {
	good := writeCache(cacheLine{amd64, 0, "libz.so.1", "/lib/libz.so.1"}, cacheLine{3, 0, "a", "b"})
	f.Add(good)
	f.Add(before232(good))
	f.Add(good[:60])
	f.Add([]byte("ld.so-1.7.0\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := hostrocm.ParseLoaderCache(b)
		if err != nil && !errors.Is(err, hostrocm.ErrLoaderCache) {
			t.Errorf("an error of another kind: %v", err)
		}
		for _, e := range got {
			if !filepath.IsAbs(e.Path) || e.SONAME == "" || strings.Contains(e.Path, "\x00") {
				t.Errorf("%+v", e)
			}
		}
	})
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]string{
		"6.4.1-83\n": "6.4.1", "7.0.0\nmore": "7.0.0", " 6.2 ": "6.2", "6.4.1+x~1": "6.4.1", "7": "7",
		"": "", "rocm": "", "6.": "6", "6.4.1 83": "", "-6": "", strings.Repeat("1", 100): "",
	} {
		got, err := hostrocm.ParseVersion([]byte(in))
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v; want %q", in, got, err, want)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add([]byte("6.4.1-83\n"))
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := hostrocm.ParseVersion(b)
		if err == nil && (v == "" || strings.Trim(v, "0123456789.") != "") {
			t.Errorf("%q: %q", b, v)
		}
	})
}
