package attest_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"forge.lthn.ai/core/go-rocm/packaging/origin"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdxlib"
)

var update = flag.Bool("update", false, "write the golden files anew")

func material(t *testing.T) attest.Material {
	t.Helper()
	dir := writeTree(t, map[string]string{
		"llama-server":               "server",
		"licenses/llama.cpp/LICENSE": "Copyright (c) 2023 Some Authors\n",
		"licenses/libx1/copyright":   "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 1999 A. Person\nLicense: GPL-3+ with X-exception\n",
	})
	if err := os.Chmod(filepath.Join(dir, "llama-server"), 0o755); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0.5.0", SourceDateEpoch: 1790000000,
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)},
		Toolchain: bundle.Toolchain{Kind: "debian", Packages: []bundle.Package{
			{Name: "gcc", Version: "4:15.2", Arch: "amd64", SHA256: strings.Repeat("c", 64)},
			{Name: "libx1", Version: "1:2.0+dfsg-1", Arch: "amd64", SHA256: strings.Repeat("d", 64)},
		}},
		Entry: bundle.Entry{Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	bundled, err := origin.Licences(dir)
	if err != nil {
		t.Fatal(err)
	}
	text := []origin.Text{{Name: "LICENSE", Body: "Terms.\n"}}
	return attest.Material{
		Version: "0.2.0", Epoch: time.Unix(1790000000, 0), Manifest: m,
		Components: append(bundled,
			origin.Component{Kind: origin.GoModule, Name: "github.com/Some/Mod", Version: "v1.2.3", Sum: "h1:abc=", Licences: []string{"Apache-2.0", "MIT"}, Texts: text},
			origin.Component{Kind: origin.GoRuntime, Name: "go", Version: "1.26.1", Licences: []string{"BSD-3-Clause"}, Holders: []string{"2009 The Go Authors"}, Texts: text},
		),
	}
}

var wantPURLs = []string{
	"pkg:deb/debian/libx1@1:2.0%2Bdfsg-1?arch=amd64",
	"pkg:generic/go@1.26.1",
	"pkg:github/ggml-org/llama.cpp@v0.5.0",
	"pkg:golang/github.com/some/mod@v1.2.3",
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", name, diff)
	}
}

func TestCycloneDX(t *testing.T) {
	m := material(t)
	text, err := attest.CycloneDX(m)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bom.cdx.json", text)

	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(text), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	var purls []string
	for _, c := range *bom.Components {
		purls = append(purls, c.PackageURL)
	}
	if diff := cmp.Diff(wantPURLs, purls); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(purls, *(*bom.Dependencies)[0].Dependencies); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
	if h := *(*bom.Components)[0].Hashes; h[0].Value != strings.Repeat("d", 64) {
		t.Errorf("hash of the package file: %v", h)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 || bom.Metadata.Timestamp != "2026-09-21T14:13:20Z" {
		t.Errorf("spec %s, time %s", bom.SpecVersion, bom.Metadata.Timestamp)
	}
}

func TestSPDX(t *testing.T) {
	m := material(t)
	text, err := attest.SPDX(m)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "bom.spdx.json", text)

	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := spdxlib.ValidateDocument(doc); err != nil {
		t.Error(err)
	}
	var purls []string
	for _, p := range doc.Packages[1:] {
		purls = append(purls, p.PackageExternalReferences[0].Locator)
	}
	if diff := cmp.Diff(wantPURLs, purls); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	texts := map[string]string{}
	for _, l := range doc.OtherLicenses {
		texts[l.LicenseIdentifier] = l.ExtractedText
	}
	for _, p := range doc.Packages[1:] {
		if texts[p.PackageLicenseDeclared] == "" {
			t.Errorf("%s: its licence %q has no text", p.PackageName, p.PackageLicenseDeclared)
		}
	}
}

// A document's unique name changes with what it states, and with nothing else.
func TestBillsAreReproducible(t *testing.T) {
	for name, write := range map[string]func(attest.Material) ([]byte, error){"CycloneDX": attest.CycloneDX, "SPDX": attest.SPDX} {
		t.Run(name, func(t *testing.T) {
			m := material(t)
			first, err := write(m)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("TZ", "Pacific/Chatham")
			m.Epoch = m.Epoch.In(time.FixedZone("x", 3600))
			m.Components[0], m.Components[2] = m.Components[2], m.Components[0]
			second, err := write(m)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(first, second) {
				t.Errorf("differ:\n%s", cmp.Diff(string(first), string(second)))
			}
		})
	}
}

func TestBillsRefuse(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*attest.Material)
		want   string
	}{
		"no manifest":        {func(m *attest.Material) { m.Manifest = nil }, "manifest"},
		"no components":      {func(m *attest.Material) { m.Components = nil }, "components"},
		"unknown package":    {func(m *attest.Material) { m.Manifest.Toolchain.Packages = nil }, "lists no package of that name"},
		"unknown kind":       {func(m *attest.Material) { m.Components[0].Kind = "rust" }, `"rust"`},
		"the same one twice": {func(m *attest.Material) { m.Components = append(m.Components, m.Components[0]) }, "twice"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, write := range []func(attest.Material) ([]byte, error){attest.CycloneDX, attest.SPDX} {
				m := material(t)
				tc.change(&m)
				out, err := write(m)
				if !errors.Is(err, attest.ErrMaterial) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %d bytes, %v; want an error about %q", len(out), err, tc.want)
				}
			}
		})
	}
}

func writeTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, body := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
