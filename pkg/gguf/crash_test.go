package gguf_test

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// crasher is a file like those that crashed other readers.
type crasher struct {
	name string
	file *raw
	want error
}

// crashers returns files for the public bug reports, written from their descriptions.
func crashers() []crasher {
	const huge = uint64(math.MaxUint64)
	return []crasher{
		{"CVE-2024-39720 ollama: the magic alone", &raw{[]byte("GGUF")}, gguf.ErrTruncated},
		{"ollama 17033: version 1, empty string, 24 bytes", file(1, 0, 0), gguf.ErrVersion},
		{"CVE-2025-66960 ollama: version 1 string length", file(1, 0, 1).u64(huge), gguf.ErrVersion},
		{"ollama 17032: key length, 36 bytes", file(3, 0, 1).u64(huge >> 1).u32(0), gguf.ErrTruncated},
		{"ollama 17032: negative as int", file(3, 0, 1).u64(huge).u32(0), gguf.ErrTruncated},
		{"ollama 16136: array length, 49 bytes", file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.Uint8)).u64(huge), gguf.ErrTruncated},
		{"ollama 16136: array of 2^30", file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.Uint64)).u64(1 << 30), gguf.ErrTruncated},
		{"ollama 17042: array of strings", file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.String)).u64(huge / 8).u64(1), gguf.ErrTruncated},
		{"ollama 16175: number of entries", file(3, 0, 1<<40).data(64), gguf.ErrTruncated},
		{"CVE-2024-12055 ollama: tensor type out of range", file(3, 1, 0).tensor("t", 9999, 0, 32).data(64), gguf.ErrMalformed},
		{"CVE-2024-12055 ollama: string past the end", file(3, 0, 1).key("a", gguf.String).u64(1 << 20).bytes("x"), gguf.ErrTruncated},
		{"CVE-2025-0317 ollama: alignment 0", file(3, 1, 1).key("general.alignment", gguf.Uint32).u32(0).tensor("t", gguf.F32, 0, 8).data(64), gguf.ErrMalformed},
		{"CVE-2026-7482 ollama: tensor larger than the file", file(3, 1, 0).tensor("t", gguf.F32, 0, 1<<20).data(64), gguf.ErrTruncated},
		{"CVE-2026-7482 ollama: tensor offset past the file", file(3, 1, 0).tensor("t", gguf.F32, 1<<20, 8).data(64), gguf.ErrMalformed},
		{"CVE-2024-23605 llama.cpp: number of entries", file(3, 0, huge).data(64), gguf.ErrTruncated},
		{"CVE-2024-21836 llama.cpp: number of tensors", file(3, huge/64, 0).data(64), gguf.ErrTruncated},
		{"CVE-2024-23496 llama.cpp: string length plus one is zero", file(3, 0, 1).u64(huge).data(64), gguf.ErrTruncated},
		{"CVE-2025-53630 llama.cpp: data size overflows", file(3, 2, 0).
			tensor("a", gguf.F32, 0, 1<<60).tensor("b", gguf.F32, 1<<62, 1<<60).data(64), gguf.ErrMalformed},
		{"CVE-2026-27940 llama.cpp: data size near the largest", file(3, 1, 0).
			tensor("a", gguf.I8, 0, math.MaxInt64-31).data(64), gguf.ErrTruncated},
		{"llama.cpp 27188: 43 bytes, array of 2^63", file(3, 0, 1).key("x", gguf.ArrayOf).u32(uint32(gguf.Bool)).u64(1 << 63), gguf.ErrTruncated},
		{"dimensions overflow", file(3, 1, 0).tensor("t", gguf.F32, 0, 1<<32, 1<<32, 1<<32, 1<<32).data(64), gguf.ErrMalformed},
		{"dimension is negative as int64", file(3, 1, 0).tensor("t", gguf.F32, 0, 1<<63).data(64), gguf.ErrMalformed},
		{"five dimensions", file(3, 1, 0).tensor("t", gguf.F32, 0, 1, 1, 1, 1, 1).data(64), gguf.ErrMalformed},
		{"2^32-1 dimensions", file(3, 1, 0).text("t").u32(math.MaxUint32).data(64), gguf.ErrMalformed},
		{"row is no multiple of the block", file(3, 1, 0).tensor("t", gguf.Q4_K, 0, 255).data(256), gguf.ErrMalformed},
		{"retired tensor type", file(3, 1, 0).tensor("t", 4, 0, 32).data(256), gguf.ErrMalformed},
		{"tensors overlap", file(3, 2, 0).tensor("a", gguf.F32, 0, 8).tensor("b", gguf.F32, 0, 8).data(64), gguf.ErrMalformed},
		{"tensors leave a gap", file(3, 2, 0).tensor("a", gguf.F32, 0, 8).tensor("b", gguf.F32, 64, 8).data(128), gguf.ErrMalformed},
		{"tensor appears twice", file(3, 2, 0).tensor("a", gguf.F32, 0, 8).tensor("a", gguf.F32, 32, 8).data(64), gguf.ErrMalformed},
		{"tensor without a name", file(3, 1, 0).tensor("", gguf.F32, 0, 8).data(64), gguf.ErrMalformed},
		{"tensor name of 64 bytes", file(3, 1, 0).tensor(strings.Repeat("n", 64), gguf.F32, 0, 8).data(64), gguf.ErrMalformed},
		{"alignment is no power of two", file(3, 0, 1).key("general.alignment", gguf.Uint32).u32(48), gguf.ErrMalformed},
		{"alignment is a string", file(3, 0, 1).key("general.alignment", gguf.String).text("32"), gguf.ErrMalformed},
		{"key appears twice", file(3, 0, 2).key("a", gguf.Uint8).u8(1).key("a", gguf.Uint8).u8(2), gguf.ErrMalformed},
		{"key of 65536 bytes", file(3, 0, 1).key(strings.Repeat("k", 1<<16), gguf.Uint8).u8(1), gguf.ErrMalformed},
		{"empty key", file(3, 0, 1).key("", gguf.Uint8).u8(1).data(8), gguf.ErrMalformed},
		{"65537 entries", file(3, 0, 1<<16+1).data(14 * (1<<16 + 1)), gguf.ErrMalformed},
		{"131073 tensors", file(3, 1<<17+1, 0).data(25 * (1<<17 + 1)), gguf.ErrMalformed},
		{"array of arrays", file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.ArrayOf)).u64(1).u32(0).u64(0), gguf.ErrMalformed},
		{"unknown value type", file(3, 0, 1).key("a", 13).u64(0), gguf.ErrMalformed},
		{"big-endian, reversed magic", &raw{[]byte("FUGG\x00\x00\x00\x03" + strings.Repeat("\x00", 16))}, gguf.ErrBigEndian},
		{"big-endian, reversed version", file(0x03000000, 0, 0), gguf.ErrBigEndian},
		{"version 4", file(4, 0, 0), gguf.ErrVersion},
		{"version 0", file(0, 0, 0), gguf.ErrVersion},
		{"another format", &raw{[]byte("PK\x03\x04 and more bytes than a header has")}, gguf.ErrNotGGUF},
		{"empty file", &raw{}, gguf.ErrNotGGUF},
	}
}

// TestRejectsCraftedFiles checks that each file is rejected with its error and a message,
// and that this needs only a few kilobytes of memory.
func TestRejectsCraftedFiles(t *testing.T) {
	for _, c := range crashers() {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f, err := c.file.read()
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.want) || f != nil {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			var fe *gguf.FormatError
			if !errors.As(err, &fe) || fe.Part == "" || fe.Reason == "" || fe.Offset < 0 || fe.Offset > int64(len(c.file.b)) {
				t.Errorf("error says too little: %+v", fe)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 256<<10 {
				t.Errorf("%d bytes allocated for a file of %d", n, len(c.file.b))
			}
		})
	}
}

// TestHugeSparseFileUsesLittleMemory opens a sparse file of a terabyte whose header
// announces as much.
func TestHugeSparseFileUsesLittleMemory(t *testing.T) {
	for name, head := range map[string]*raw{
		"string":  file(3, 0, 1).key("a", gguf.String).u64(1 << 39),
		"keys":    file(3, 0, 1<<35),
		"tensors": file(3, 1<<35, 0),
		"texts":   file(3, 0, 1).u64(1 << 38),
		"array":   file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.String)).u64(1 << 36),
		"numbers": file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.Uint64)).u64(1 << 36),
		"arrays":  emptyArrays(1000),
		"strings": file(3, 0, 1).key("a", gguf.ArrayOf).u32(uint32(gguf.String)).u64(1 << 23).u64(1 << 30),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "giant.gguf")
			if err := os.WriteFile(path, head.b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, 1<<40); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := gguf.Open(path)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, gguf.ErrMalformed) {
				t.Errorf("got %v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

// emptyArrays begins with an array of 2^24 empty strings, which a sparse file
// continues with, of n entries in all.
func emptyArrays(n uint64) *raw {
	return file(3, 0, n).key("a", gguf.ArrayOf).u32(uint32(gguf.String)).u64(1 << 24)
}

// A string of more than 64 KiB stays in the file until it is asked for.
func TestLongStringsAreReadOnDemand(t *testing.T) {
	for _, n := range []int{0, 1, 64 << 10, 64<<10 + 1, 1 << 20, 16 << 20} {
		want := strings.Repeat("é", n/2) + strings.Repeat("x", n%2)
		r := file(3, 0, 2).key("a", gguf.String).text(want).key("b", gguf.Uint8).u8(7)
		f := r.mustRead(t)
		if got, err := f.Text("a"); err != nil || got != want {
			t.Errorf("%d bytes: %d read, %v", n, len(got), err)
		}
		if v, _ := f.Lookup("a"); v.String() != want {
			t.Errorf("%d bytes: formatted as %d", n, len(v.String()))
		}
		if b, err := f.Uint("b"); err != nil || b != 7 {
			t.Errorf("the entry behind %d bytes: %d, %v", n, b, err)
		}
	}
	f := longString(16<<20 + 1).mustRead(t)
	if _, err := f.Text("tokenizer.huggingface.json"); !errors.Is(err, gguf.ErrMalformed) {
		t.Errorf("more than 16 MiB: %v", err)
	}
	if _, err := f.Uint("tokenizer.huggingface.json"); !errors.Is(err, gguf.ErrType) || len(err.Error()) > 200 {
		t.Errorf("as a number: %v", err)
	}
	path := store(t, t.TempDir(), "x.gguf", longString(1<<20).b)
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 1<<19); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Text("tokenizer.huggingface.json"); !errors.Is(err, gguf.ErrTruncated) {
		t.Errorf("of a file that shrank: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Text("tokenizer.huggingface.json"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("of a closed file: %v", err)
	}
}

// TestTruncatedAtEveryByte checks that a valid file is rejected if it ends at any byte.
func TestTruncatedAtEveryByte(t *testing.T) {
	good := sample()
	good.mustRead(t)
	for n := range good.b {
		_, err := gguf.NewReader(bytes.NewReader(good.b[:n]), int64(n))
		if err == nil {
			t.Fatalf("accepted when cut at %d of %d", n, len(good.b))
		}
		if n >= 4 && !errors.Is(err, gguf.ErrTruncated) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
	// The file shrinks after its size was read.
	if _, err := gguf.NewReader(bytes.NewReader(good.b[:40]), int64(len(good.b))); !errors.Is(err, gguf.ErrTruncated) {
		t.Errorf("shrunk file: %v", err)
	}
}
