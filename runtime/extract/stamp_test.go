package extract

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func sampleStamp() *stamp {
	return &stamp{
		digest:  strings.Repeat("0f", 32),
		targets: []gfx.Target{"gfx1100", "gfx1101"},
		entries: []stampEntry{
			{path: ".", dir: true, inode: 12, mode: 0o40700, uid: 1000, mtime: 1_700_000_000_123_456_789, ctime: 1_700_000_001_000_000_000},
			{path: "libfoo.so.1", size: 70_001, inode: 1<<63 + 5, mode: 0o100644, uid: 1000, mtime: -1, ctime: 7},
			{path: "rocblas/library/a_gfx1100.co", size: 0, inode: 14, mode: 0o100755, uid: 0, mtime: 0, ctime: 0},
		},
	}
}

func TestStampRoundTrip(t *testing.T) {
	for _, s := range []*stamp{sampleStamp(), {digest: "x", targets: []gfx.Target{}, entries: []stampEntry{}}} {
		got, err := parseStamp(s.encode())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, s) {
			t.Errorf("got  %+v\nwant %+v", got, s)
		}
	}
}

// The test truncates the stamp at every byte and flips every bit.
func TestParseStampRejectsDamage(t *testing.T) {
	good := sampleStamp().encode()
	for i := range good {
		if _, err := parseStamp(good[:i]); !errors.Is(err, errStamp) {
			t.Fatalf("truncated to %d bytes: %v", i, err)
		}
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := parseStamp(bad); !errors.Is(err, errStamp) {
				t.Fatalf("bit %d of byte %d flipped: %v", bit, i, err)
			}
		}
	}
	if _, err := parseStamp(append(good, '\n')); !errors.Is(err, errStamp) {
		t.Errorf("trailing data: %v", err)
	}
}

func FuzzStamp(f *testing.F) {
	f.Add(sampleStamp().encode())
	f.Add([]byte("go-rocm stamp 1\n"))
	f.Add((&stamp{digest: "d"}).encode())
	for _, entry := range []string{"f a 1 2 3 4 5", "d . 1 9 0 0 0", "f  1 1 1 1 1 1", "x a", "f a 99999999999999999999 1 1 1 1 1"} {
		// With a correct checksum, so that the fuzzer gets past it.
		s := &stamp{digest: "d", entries: []stampEntry{{path: "%"}}}
		body, _, _ := strings.Cut(string(s.encode()), "f %")
		f.Add(withChecksum([]byte(body + entry + "\n")))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStamp(b)
		if err != nil {
			if !errors.Is(err, errStamp) {
				t.Errorf("error of another kind: %v", err)
			}
			s, err = parseStamp(withChecksum(b))
			if err != nil {
				return
			}
		}
		second, err := parseStamp(s.encode())
		if err != nil || !reflect.DeepEqual(s, second) {
			t.Errorf("%+v\nbecomes %+v, %v", s, second, err)
		}
	})
}

// withChecksum appends the correct checksum to the lines.
func withChecksum(b []byte) []byte {
	return fmt.Appendf(bytes.Clone(b), "sum %x\n", sha256.Sum256(b))
}
