package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// forger unpacks a pack, so that a test can change it and pack it again with a
// matching index.
type forger struct {
	index  *index
	tars   [][]byte // of each frame
	body   []byte   // replaces the index
	window int      // of the frames; 0 is 1 MiB
}

func forge(tb testing.TB, pack []byte) *forger {
	tb.Helper()
	x, err := readIndex(bytes.NewReader(pack), int64(len(pack)))
	if err != nil {
		tb.Fatal(err)
	}
	f := &forger{index: x}
	for _, fr := range x.Frames {
		z, err := zstd.NewReader(bytes.NewReader(pack[fr.Offset : fr.Offset+fr.Length]))
		if err != nil {
			tb.Fatal(err)
		}
		raw, err := io.ReadAll(z)
		z.Close()
		if err != nil {
			tb.Fatal(err)
		}
		f.tars = append(f.tars, raw)
	}
	return f
}

// frameOf finds the frame and the member with that file's content.
func (f *forger) frameOf(path string) (int, *member) {
	for i := range f.index.Frames {
		m := f.index.Frames[i].Members
		if k := slices.IndexFunc(m, func(m member) bool { return m.Path == path }); k >= 0 {
			return i, &m[k]
		}
	}
	panic("no member " + path)
}

// insert inserts bytes into a frame and moves the members after them.
func (f *forger) insert(frame int, at int64, b []byte) {
	f.tars[frame] = slices.Insert(f.tars[frame], int(at), b...)
	for i := range f.index.Frames[frame].Members {
		if m := &f.index.Frames[frame].Members[i]; m.Data >= at {
			m.Data += int64(len(b))
		}
	}
}

// header changes one byte of the ustar header before the file's data and corrects
// its checksum.
func (f *forger) header(path string, offset int, c byte) {
	i, m := f.frameOf(path)
	h := f.tars[i][m.Data-tarBlock : m.Data]
	h[offset] = c
	copy(h[148:156], "        ")
	sum := int64(0)
	for _, c := range h {
		sum += int64(c)
	}
	octal(h[148:155], sum)
}

// manifest replaces the manifest.
func (f *forger) manifest(tb testing.TB, b []byte) {
	tb.Helper()
	t := tarMember{name: ManifestName, size: int64(len(b)), mode: 0o644}
	head, err := t.headers()
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(b)
	f.index.Manifest = hex.EncodeToString(sum[:])
	f.index.Frames[0].Members[0].Stored = int64(len(b))
	f.tars[0] = slices.Concat(head, b, make([]byte, padding(int64(len(b)))))
}

func (f *forger) pack(tb testing.TB) []byte {
	tb.Helper()
	var out bytes.Buffer
	encode := GoEncoder(zstd.SpeedFastest, 1<<20)
	if f.window > 0 {
		encode = wideEncoder(f.window)
	}
	for i := range f.index.Frames {
		fr := &f.index.Frames[i]
		at := out.Len()
		fr.Raw = int64(len(f.tars[i]))
		if err := encode(context.Background(), &out, bytes.NewReader(f.tars[i]), fr.Raw); err != nil {
			tb.Fatal(err)
		}
		fr.Offset, fr.Length = int64(at), int64(out.Len()-at)
		var err error
		if fr.Window, err = frameWindow(out.Bytes()[at:]); err != nil {
			tb.Fatal(err)
		}
	}
	tail, err := f.index.encode()
	if f.body != nil {
		tail = indexFrame(f.body)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return append(out.Bytes(), tail...)
}

// wideEncoder always uses the window, whatever the size of its input.
func wideEncoder(window int) Encoder {
	return func(_ context.Context, dst io.Writer, src io.Reader, _ int64) error {
		z, err := zstd.NewWriter(dst, zstd.WithWindowSize(window))
		if err == nil {
			_, err = io.Copy(z, src)
		}
		if err == nil {
			err = z.Flush() // so that the size is not known when the header is written
		}
		if err == nil {
			err = z.Close()
		}
		return err
	}
}

// evil returns a whole archive member.
func evil(tb testing.TB, name string) []byte {
	tb.Helper()
	t := tarMember{name: name, size: 4, mode: 0o755}
	h, err := t.headers()
	if err != nil {
		tb.Fatal(err)
	}
	return append(append(h, "evil"...), make([]byte, padding(4))...)
}

// twins returns a pack with two files of equal content and different modes.
func twins(tb testing.TB) []byte {
	tb.Helper()
	dir := tb.TempDir()
	for name, mode := range map[string]os.FileMode{"data": 0o644, "server": 0o755} {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(p, []byte("same"), 0o600), os.Chmod(p, mode)); err != nil {
			tb.Fatal(err)
		}
	}
	m, err := Build(dir, Manifest{Name: "twins", Variant: "cpu", Flavour: FlavourSystem, Version: "1", Entry: Entry{Program: "server"}})
	if err != nil {
		tb.Fatal(err)
	}
	var b bytes.Buffer
	if _, err := Pack(context.Background(), &b, dir, m, PackOptions{FrameSize: 1}); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// Without one of two equal files, Extract still creates both, but tar does not.
func TestVerifyFindsMissingTwin(t *testing.T) {
	t.Parallel()
	f := forge(t, twins(t))
	i, _ := f.frameOf("server")
	f.index.Frames = slices.Delete(f.index.Frames, i, i+1)
	f.tars[i-1] = append(f.tars[i-1], make([]byte, 2*tarBlock)...)
	f.tars = slices.Delete(f.tars, i, i+1)
	b := f.pack(t)
	r, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(t.Context()); !errors.Is(err, ErrContent) {
		t.Errorf("Verify: %v", err)
	}
}

func TestOpenRejectsTwinOfOtherSize(t *testing.T) {
	t.Parallel()
	b := smallPack(t)
	r, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	m := r.Manifest()
	k := slices.IndexFunc(m.Files, func(f File) bool { return f.Path == "libb.so" })
	m.Files[k].Size++
	canonical, err := m.MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	f := forge(t, b)
	f.manifest(t, canonical)
	b = f.pack(t)
	if _, err := Open(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrContent) {
		t.Errorf("Open: %v", err)
	}
}

// Rejecting a pack of a few KB must not need much memory. The limit allows for two
// megabytes of manifest, lists of maxListElements that grow while they are decoded,
// and the decoders.
func TestOpenBoundsMemory(t *testing.T) {
	fill := func(head, each, tail string, size int) []byte {
		n := (size - len(head) - len(tail)) / len(each)
		return slices.Concat([]byte(head), bytes.Repeat([]byte(each), n), []byte(tail))
	}
	manifest := func(head, each, tail string) func(f *forger) {
		return func(f *forger) { f.manifest(t, fill(head, each, tail, MaxManifestSize)) }
	}
	index := func(head, each, tail string) func(f *forger) {
		return func(f *forger) { f.body = fill(head, each, tail, maxIndexSize) }
	}
	for name, change := range map[string]func(f *forger){
		"files":          manifest(`{"schema":1,"files":[{}`, ",{}", `]}`),
		"as many files":  manifest(`{"schema":1,"files":[{}`+strings.Repeat(",{}", maxListElements), " ", `]}`),
		"packages":       manifest(`{"schema":1,"toolchain":{"packages":[{}`, ",{}", `]}}`),
		"parts":          manifest(`{"schema":1,"files":[{"parts":[{}`, ",{}", `]}]}`),
		"needed":         manifest(`{"schema":1,"files":[{"needed":[""`, `,""`, `]}]}`),
		"files of null":  manifest(`{"schema":1,"files":[null`, `,null`, `]}`),
		"targets":        manifest(`{"schema":1,"targets":[0`, `,0`, `]}`),
		"deep":           manifest(``, "[", ``),
		"extents":        manifest(`{"schema":1,"files":[{"parts":[{"extents":"`, "+", `"}]}]}`),
		"short extents":  manifest(`{"schema":1,"files":[{"parts":[{"extents":"`, "0+0 ", `0+0"}]}]}`),
		"large manifest": func(f *forger) { f.manifest(t, make([]byte, 64<<20)) },
		"large window":   func(f *forger) { f.window = MaxWindow },
		"frames":         index(`{"schema":1,"frames":[{}`, ",{}", `]}`),
		"null frames":    index(`{"schema":1,"frames":[null`, ",null", `]}`),
		"members":        index(`{"schema":1,"frames":[{"members":[{}`, ",{}", `]}]}`),
		"large index":    func(f *forger) { f.body = make([]byte, 64<<20) },
	} {
		t.Run(name, func(t *testing.T) {
			f := forge(t, smallPack(t))
			change(f)
			b := f.pack(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Open(bytes.NewReader(b), int64(len(b)))
			runtime.ReadMemStats(&after)
			if !errors.Is(err, ErrNotPack) && !errors.Is(err, ErrManifest) && !errors.Is(err, ErrContent) {
				t.Errorf("got %v", err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 40<<20 {
				t.Errorf("%d bytes allocated for a pack of %d", n, len(b))
			} else {
				t.Logf("%d bytes allocated for a pack of %d: %.200v", n, len(b), err)
			}
		})
	}
}

func TestCountListElements(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int{
		``: 0, `[`: 0, `]],`: 0, `"[1,2`: 0, `[1,2]`: 1, `{"a":1,"b":2}`: 0, `"\\",[1,2,3]`: 2,
		`{"a":[1,2,{"b":"x,[y\",","c":[3,4]}],"d":[],"e":[[],[]]}`: 4,
	} {
		if got := countListElements([]byte(text)); got != want {
			t.Errorf("%s: %d, want %d", text, got, want)
		}
	}
}
