package bundle_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

var update = flag.Bool("update", false, "rewrite the golden files") //nolint:gochecknoglobals // a flag of the tests

var (
	sumA = strings.Repeat("a1", 32) //nolint:gochecknoglobals // constants of the tests
	sumB = strings.Repeat("b2", 32) //nolint:gochecknoglobals // constants of the tests
)

// full returns a manifest with every field set.
func full() *bundle.Manifest {
	m := head()
	m.Schema = bundle.Schema
	m.Source.URL = "https://example.org/llama.cpp?a=1&b=<2>"
	m.Toolchain = bundle.Toolchain{
		Kind: "forky", BaseDigest: "sha256:" + sumA, Locked: true,
		Packages:   []bundle.Package{{Name: "gcc", Version: "15.2-1", Arch: "amd64", SHA256: sumB}, {Name: "hipcc", Version: "6.4"}},
		Deviations: []string{"gcc 15.2 for 15.1"},
	}
	m.Stages = []bundle.Stage{{Name: "compile", Digest: sumA, Options: []string{"GGML_HIP=ON"}, Env: []string{"LC_ALL=C.UTF-8"}, Output: sumB}}
	m.Files = []bundle.File{
		{Path: "ld-linux-x86-64.so.2", Size: 10, Mode: 0o755, SHA256: sumA},
		{Path: "llama-server", Size: 20, Mode: 0o755, SHA256: sumB, Needed: []string{"libc.so.6"}, Parts: []bundle.Part{
			{Target: "gfx1100", SHA256: sumA, Extents: bundle.Extents{{2, 3}, {8, 1}}},
			{Target: "gfx1101", SHA256: sumB, Extents: bundle.Extents{{5, 3}, {19, 1}}},
		}},
		{Path: "rocblas/library/a_gfx1100.co", Size: 0, Mode: 0o644, SHA256: sumA, Target: "gfx1100"},
	}
	m.CodeObjects = []bundle.CodeObjects{{File: "llama-server", Target: "gfx1100", Bytes: 5, Kernels: 1}, {File: "llama-server", Target: "gfx1101", Bytes: 6, Kernels: 1}}
	m.Excluded = []bundle.Excluded{{Name: "libnuma.so.1", Reason: "never opened"}}
	return &m
}

func TestCanonicalFormIsStable(t *testing.T) {
	t.Parallel()
	got, err := full().MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "manifest.json")
	if *update {
		if err := os.WriteFile(golden, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("canonical form changed, and with it every digest (-want +got):\n%s", diff)
	}
	m, err := bundle.ParseManifest(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(full(), m); diff != "" {
		t.Errorf("parsed (-want +got):\n%s", diff)
	}
	if len(m.Digest()) != 64 {
		t.Errorf("digest %q", m.Digest())
	}
}

// Manifests that are older than parts keep their digests.
func TestParseManifestWithoutParts(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join("testdata", "manifest-without-parts.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); m.Digest() != hex.EncodeToString(sum[:]) {
		t.Errorf("digest %s", m.Digest())
	}
	for _, f := range m.Files {
		if len(f.Parts) > 0 {
			t.Errorf("%s has parts", f.Path)
		}
	}
}

func TestValidateRejects(t *testing.T) {
	t.Parallel()
	file := func(change func(*bundle.File)) func(*bundle.Manifest) {
		return func(m *bundle.Manifest) { change(&m.Files[1]) }
	}
	extents := func(first, second bundle.Extents) func(*bundle.Manifest) {
		return file(func(f *bundle.File) { f.Parts[0].Extents, f.Parts[1].Extents = first, second })
	}
	for name, change := range map[string]func(*bundle.Manifest){
		"schema":              func(m *bundle.Manifest) { m.Schema = 2 },
		"no name":             func(m *bundle.Manifest) { m.Name = "" },
		"name with a slash":   func(m *bundle.Manifest) { m.Name = "a/b" },
		"variant":             func(m *bundle.Manifest) { m.Variant = "Hip" },
		"flavour":             func(m *bundle.Manifest) { m.Flavour = "other" },
		"no version":          func(m *bundle.Manifest) { m.Version = "" },
		"version with escape": func(m *bundle.Manifest) { m.Version = "v\x1b[1m" },
		"epoch":               func(m *bundle.Manifest) { m.SourceDateEpoch = -1 },
		"late epoch":          func(m *bundle.Manifest) { m.SourceDateEpoch = 1 << 33 },
		"target":              func(m *bundle.Manifest) { m.Targets[0] = "gfx" },
		"target twice":        func(m *bundle.Manifest) { m.Targets[1] = m.Targets[0] },
		"targets unsorted":    func(m *bundle.Manifest) { m.Targets = []gfx.Target{"gfx1101", "gfx1100"} },
		"tree":                func(m *bundle.Manifest) { m.Source.Tree = "main" },
		"base digest":         func(m *bundle.Manifest) { m.Toolchain.BaseDigest = "sha256:abc" },
		"bare base digest":    func(m *bundle.Manifest) { m.Toolchain.BaseDigest = sumA },
		"package":             func(m *bundle.Manifest) { m.Toolchain.Packages[0].Version = "" },
		"package sum":         func(m *bundle.Manifest) { m.Toolchain.Packages[0].SHA256 = "x" },
		"packages unsorted":   func(m *bundle.Manifest) { m.Toolchain.Packages[0].Name = "zz" },
		"deviation":           func(m *bundle.Manifest) { m.Toolchain.Deviations[0] = "" },
		"stage twice":         func(m *bundle.Manifest) { m.Stages = append(m.Stages, m.Stages[0]) },
		"stage digest":        func(m *bundle.Manifest) { m.Stages[0].Digest = strings.ToUpper(sumA) },
		"stage option":        func(m *bundle.Manifest) { m.Stages[0].Options[0] = "a\x00b" },
		"no files":            func(m *bundle.Manifest) { m.Files = nil },
		"files unsorted":      func(m *bundle.Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] },
		"file twice":          func(m *bundle.Manifest) { m.Files[0] = m.Files[1] },
		"file and directory":  func(m *bundle.Manifest) { m.Files[2].Path = "llama-server/x" },
		"file size":           file(func(f *bundle.File) { f.Size = -1 }),
		"huge file":           file(func(f *bundle.File) { f.Size = bundle.MaxFileSize + 1 }),
		"setuid":              file(func(f *bundle.File) { f.Mode = 0o4755 }),
		"writable by others":  file(func(f *bundle.File) { f.Mode = 0o775 }),
		"unreadable":          file(func(f *bundle.File) { f.Mode = 0o111 }),
		"file sum":            file(func(f *bundle.File) { f.SHA256 = sumA[1:] }),
		"upper-case sum":      file(func(f *bundle.File) { f.SHA256 = strings.ToUpper(sumA) }),
		"unknown target":      func(m *bundle.Manifest) { m.Files[2].Target = "gfx906" },
		"needed":              file(func(f *bundle.File) { f.Needed = []string{""} }),
		"parts of a target's": func(m *bundle.Manifest) { m.Files[2].Parts = m.Files[1].Parts },
		"part without target": file(func(f *bundle.File) { f.Parts[0].Target = "" }),
		"part missing":        file(func(f *bundle.File) { f.Parts = f.Parts[1:] }),
		"part twice":          file(func(f *bundle.File) { f.Parts[1].Target = "gfx1100" }),
		"parts unsorted":      file(func(f *bundle.File) { f.Parts[0], f.Parts[1] = f.Parts[1], f.Parts[0] }),
		"part of no target":   file(func(f *bundle.File) { f.Parts[1].Target = "gfx906" }),
		"part of one target":  func(m *bundle.Manifest) { m.Targets, m.Files[1].Parts = m.Targets[:1], m.Files[1].Parts[:1] },
		"part sum":            file(func(f *bundle.File) { f.Parts[0].SHA256 = "" }),
		"empty parts":         extents(nil, nil),
		"empty extent":        extents(bundle.Extents{{2, 0}}, nil),
		"negative extent":     extents(bundle.Extents{{-1, 2}}, nil),
		"negative size":       extents(bundle.Extents{{5, -2}}, nil),
		"extent outside":      extents(nil, bundle.Extents{{15, 6}}),
		"extent far outside":  extents(nil, bundle.Extents{{1 << 62, 1 << 62}}),
		"extents overlap":     extents(bundle.Extents{{2, 5}, {6, 1}}, nil),
		"extents unsorted":    extents(bundle.Extents{{6, 1}, {2, 3}}, nil),
		"parts overlap":       extents(bundle.Extents{{2, 5}}, bundle.Extents{{1, 2}}),
		"equal, other parts":  func(m *bundle.Manifest) { m.Files[0].SHA256 = m.Files[1].SHA256 },
		"no loader":           func(m *bundle.Manifest) { m.Entry.Loader = "" },
		"loader not there":    func(m *bundle.Manifest) { m.Entry.Loader = "ld.so" },
		"no program":          func(m *bundle.Manifest) { m.Entry.Program = "" },
		"program not run":     file(func(f *bundle.File) { f.Mode = 0o644 }),
		"program of a target": file(func(f *bundle.File) { f.Target = "gfx1100" }),
		"code without file":   func(m *bundle.Manifest) { m.CodeObjects[0].File = "x" },
		"code target":         func(m *bundle.Manifest) { m.CodeObjects[0].Target = "" },
		"code twice":          func(m *bundle.Manifest) { m.CodeObjects[1] = m.CodeObjects[0] },
		"code count":          func(m *bundle.Manifest) { m.CodeObjects[0].Kernels = -1 },
		"excluded":            func(m *bundle.Manifest) { m.Excluded[0].Reason = "" },
	} {
		t.Run(name, func(t *testing.T) {
			m := full()
			change(m)
			if err := m.Validate(); !errors.Is(err, bundle.ErrManifest) {
				t.Errorf("got %v, want ErrManifest", err)
			}
			if m.Digest() != "" {
				t.Error("it has a digest")
			}
			if _, err := m.MarshalCanonical(); err == nil {
				t.Error("it was marshalled")
			}
		})
	}
}

func TestValidPathRejectsUnsafeNames(t *testing.T) {
	t.Parallel()
	for _, p := range []string{"a", "a/b", "libstdc++.so.6", "..a", "a..b/c...", "rocblas/library/x_gfx1100.co", "@a,b=c%d~", strings.Repeat("a/", 100) + "a"} {
		if err := bundle.ValidPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a/..", "./a", "-rf", "a/-x", "~root", "a b", "a\nb", "a\x00b", `a\b`, "a:b", "ä", "\xff",
		"manifest.json", strings.Repeat("a", 256), strings.Repeat("a/", 600) + "a", "$(x)", "a;b", "a*",
	} {
		if err := bundle.ValidPath(p); err == nil {
			t.Errorf("%q is allowed", p)
		}
	}
}

// Anything but the exact canonical form is rejected, else two byte strings would
// have one digest.
func TestParseManifestRejectsOtherForms(t *testing.T) {
	t.Parallel()
	good, err := full().MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"empty":           nil,
		"cut":             good[:len(good)/2],
		"no newline":      good[:len(good)-1],
		"space":           append([]byte(" "), good...),
		"trailing":        append(bytes.Clone(good), '{', '}'),
		"unknown field":   bytes.Replace(good, []byte(`{"schema":1`), []byte(`{"x":2,"schema":1`), 1),
		"key twice":       bytes.Replace(good, []byte(`"schema":1`), []byte(`"schema":3,"schema":1`), 1),
		"key in capitals": bytes.Replace(good, []byte(`"schema"`), []byte(`"Schema"`), 1),
		"other schema":    bytes.Replace(good, []byte(`"schema":1`), []byte(`"schema":9`), 1),
		"escaped":         bytes.Replace(good, []byte(`"llama-test"`), []byte(`"llama\u002dtest"`), 1),
		"empty list":      bytes.Replace(good, []byte(`"options":["GGML_HIP=ON"]`), []byte(`"options":[]`), 1),
		"extents spaced":  bytes.Replace(good, []byte(`"2+3 8+1"`), []byte(`"2+3  8+1"`), 1),
		"extents zeroed":  bytes.Replace(good, []byte(`"2+3 8+1"`), []byte(`"02+3 8+1"`), 1),
		"extents empty":   bytes.Replace(good, []byte(`"2+3 8+1"`), []byte(`""`), 1),
		"extents list":    bytes.Replace(good, []byte(`"2+3 8+1"`), []byte(`[2,3,8,1]`), 1),
		"extents signed":  bytes.Replace(good, []byte(`"2+3 8+1"`), []byte(`"2+-3"`), 1),
		"extents huge":    bytes.Replace(good, []byte(`"2+3 8+1"`), []byte(`"2+3000000000000000000"`), 1),
		"null":            []byte("null\n"),
		"list":            []byte("[]\n"),
		"huge":            make([]byte, bundle.MaxManifestSize+1),
		"bad content":     bytes.Replace(good, []byte(`"llama-server","size"`), []byte(`"../../server","size"`), 1),
	} {
		if _, err := bundle.ParseManifest(b); !errors.Is(err, bundle.ErrManifest) {
			t.Errorf("%s: got %v, want ErrManifest", name, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	for _, m := range []*bundle.Manifest{full()} {
		b, err := m.MarshalCanonical()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)-2])
		f.Add(bytes.ReplaceAll(b, []byte("llama-server"), []byte("../a")))
		f.Add(bytes.Replace(b, []byte("gfx1100"), []byte("gfx1101"), 1))
		for _, extents := range []string{"2+4 8+1", "2+3", "", "0+18446744073709551617", "2+3 8+12", "2+3,8+1"} {
			f.Add(bytes.Replace(b, []byte("2+3 8+1"), []byte(extents), 1))
		}
	}
	if b, err := os.ReadFile(filepath.Join("testdata", "manifest-without-parts.json")); err == nil {
		f.Add(b)
	} else {
		f.Fatal(err)
	}
	f.Add([]byte(`{"schema":1,"files":[{"path":"a","size":9223372036854775807}]}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := bundle.ParseManifest(b)
		if err != nil {
			if !errors.Is(err, bundle.ErrManifest) {
				t.Errorf("error of another kind: %v", err)
			}
			return
		}
		second, err := m.MarshalCanonical()
		if err != nil || !bytes.Equal(second, b) {
			t.Errorf("%q is written as %q, %v", b, second, err)
		}
		for _, file := range m.Files {
			if !filepath.IsLocal(file.Path) {
				t.Errorf("path %q", file.Path)
			}
			seen := make(map[int64]bool) // a few bytes of each file, for speed
			for _, p := range file.Parts {
				if !slices.Contains(m.Targets, p.Target) {
					t.Errorf("part for %q", p.Target)
				}
				for _, x := range p.Extents {
					if x.Offset < 0 || x.Size <= 0 || x.Offset+x.Size > file.Size {
						t.Errorf("extent %+v in %d bytes", x, file.Size)
					}
					for i := x.Offset; i < min(x.Offset+x.Size, x.Offset+1000); i++ {
						if seen[i] {
							t.Fatalf("byte %d is in two extents", i)
						}
						seen[i] = true
					}
				}
			}
		}
	})
}
