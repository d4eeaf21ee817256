package bundle

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Verify must find changes that no file digest covers, since tar reads those bytes.
func TestVerifyFindsForgedArchive(t *testing.T) {
	t.Parallel()
	module := evil(t, "libggml-evil.so")
	for name, change := range map[string]func(f *forger){
		"extra member before another": func(f *forger) {
			i, m := f.frameOf("server")
			f.insert(i, m.Data-tarBlock, module)
		},
		"extra member after a link":           func(f *forger) { i, m := f.frameOf("liba.so"); f.insert(i, m.Data+3*tarBlock-tarBlock, module) },
		"extra member after the manifest":     func(f *forger) { f.insert(0, int64(len(f.tars[0])), module) },
		"extra member before the manifest":    func(f *forger) { f.insert(0, 0, module) },
		"extra member at the end":             func(f *forger) { n := len(f.tars) - 1; f.insert(n, int64(len(f.tars[n]))-2*tarBlock, module) },
		"extra member after the end":          func(f *forger) { n := len(f.tars) - 1; f.insert(n, int64(len(f.tars[n])), module) },
		"no end":                              func(f *forger) { n := len(f.tars) - 1; f.tars[n] = f.tars[n][:len(f.tars[n])-2*tarBlock] },
		"an end in the middle":                func(f *forger) { i, m := f.frameOf("server"); f.insert(i, m.Data-tarBlock, make([]byte, 2*tarBlock)) },
		"another name":                        func(f *forger) { f.header("server", 0, 'S') },
		"another mode":                        func(f *forger) { f.header("server", 104, '4') },
		"another time":                        func(f *forger) { f.header("server", 146, '1') },
		"another owner":                       func(f *forger) { f.header("server", 114, '1') },
		"another mode of the manifest":        func(f *forger) { f.header(ManifestName, 104, '7') },
		"another kind":                        func(f *forger) { f.header("server", 156, '7') },
		"another sum":                         func(f *forger) { i, m := f.frameOf("server"); f.tars[i][m.Data-tarBlock+155] = 0 },
		"data in the padding":                 func(f *forger) { i, m := f.frameOf("server"); f.tars[i][m.Data+m.Stored] = 1 },
		"data in the padding of a sparse map": func(f *forger) { i, m := f.frameOf("libhole.so"); f.tars[i][m.Data+tarBlock-1] = 1 },
		"another name in a pax record": func(f *forger) {
			i, _ := f.frameOf("libhole.so")
			swap(f.tars[i], "sparse.name=libhole", "sparse.name=libevil")
		},
		"another size in a pax record": func(f *forger) {
			i, _ := f.frameOf("libhole.so")
			swap(f.tars[i], "realsize=100000", "realsize=100001")
		},
		"a link of another name":   func(f *forger) { i, _ := f.frameOf("liba.so"); swap(f.tars[i], "libb.so", "libc.so") },
		"a link to something else": func(f *forger) { i, m := f.frameOf("liba.so"); swap(f.tars[i][m.Data:], "liba.so", "server\x00") },
		"link and target swapped":  func(f *forger) { _, m := f.frameOf("liba.so"); m.Path = "libb.so" },
	} {
		t.Run(name, func(t *testing.T) {
			f := forge(t, smallPack(t))
			change(f)
			b := f.pack(t)
			r, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Verify(t.Context()); !errors.Is(err, ErrContent) {
				t.Errorf("got %v", err)
			}
		})
	}
	same := forge(t, smallPack(t)).pack(t)
	r, err := Open(bytes.NewReader(same), int64(len(same)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(t.Context()); err != nil {
		t.Errorf("packed again and not changed: %v", err)
	}
}

func swap(b []byte, from, to string) {
	i := bytes.Index(b, []byte(from))
	if i < 0 || len(from) != len(to) {
		panic("no " + from)
	}
	copy(b[i:], to)
}

// This test shows why TestVerifyFindsForgedArchive matters: tar unpacks members that
// the manifest does not list.
func TestTarUnpacksForgedMember(t *testing.T) {
	t.Parallel()
	f := forge(t, smallPack(t))
	i, m := f.frameOf("server")
	f.insert(i, m.Data-tarBlock, evil(t, "libggml-evil.so"))
	dir := t.TempDir()
	pack := filepath.Join(dir, "p.tar.zst")
	if err := os.WriteFile(pack, f.pack(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if msg, err := exec.CommandContext(t.Context(), "tar", "--zstd", "-xf", pack, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, msg)
	}
	if _, err := os.Stat(filepath.Join(dir, "libggml-evil.so")); err != nil {
		t.Errorf("tar did not unpack the member, so the forgery of these tests is wrong: %v", err)
	}
}

func TestVerifyNamesFirstDamageOfEachFrameOnce(t *testing.T) {
	t.Parallel()
	f := forge(t, smallPack(t))
	var want []string
	for i := 1; i < len(f.index.Frames); i++ {
		m := f.index.Frames[i].Members[0]
		f.tars[i][m.Data+m.Stored-1] ^= 1
		want = append(want, m.Path)
	}
	if len(want) == 0 {
		t.Fatal("no frame but the manifest's")
	}
	b := f.pack(t)
	r, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	err = r.Verify(t.Context())
	if !errors.Is(err, ErrContent) {
		t.Fatal(err)
	}
	list, ok := strings.CutPrefix(err.Error(), "bad bundle content: ")
	got := strings.Split(list, "; ")
	if !ok || len(got) != len(want) {
		t.Fatalf("%v, want of each of %q one", err, want)
	}
	for i, path := range want {
		if rest, ok := strings.CutPrefix(got[i], path+": sha256 is "); !ok || strings.Contains(rest, path) || strings.Contains(rest, "content") {
			t.Errorf("%q is reported as %q", path, got[i])
		}
	}
}
