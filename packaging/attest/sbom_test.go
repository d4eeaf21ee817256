package attest_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/filetree"
	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// smallBundle returns a bundle with a server and one library, whose toolchain has
// these packages.
func smallBundle(t *testing.T, m bundle.Manifest, packages ...bundle.Package) attest.Bundle {
	t.Helper()
	dir := filetree.Write(t, map[string]string{
		"llama-server":               "server " + m.Variant,
		"licenses/llama.cpp/LICENSE": "Copyright (c) 2023 Some Authors\n",
		"licenses/libx1/copyright":   "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 1999 A. Person\nLicense: GPL-3+ with X-exception\n",
	})
	if m.Variant == "hip" {
		filetree.WriteTo(t, dir, map[string]string{"licenses/libhip/copyright": "Copyright (c) 2020 H. Person\n"})
	}
	if err := os.Chmod(filepath.Join(dir, "llama-server"), 0o755); err != nil {
		t.Fatal(err)
	}
	m.Name, m.Flavour, m.Version, m.SourceDateEpoch = "llama-"+m.Variant, bundle.FlavourSystem, "v0.5.0", 1790000000
	m.Source = bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)}
	m.Toolchain.Kind = "debian"
	m.Toolchain.Packages = append([]bundle.Package{}, packages...)
	m.Toolchain.Packages = append(m.Toolchain.Packages, bundle.Package{Name: "libx1", Version: "1:2.0+dfsg-1", Arch: "amd64", SHA256: strings.Repeat("d", 64)})
	m.Entry = bundle.Entry{Program: "llama-server"}
	built, err := bundle.Build(dir, m)
	if err != nil {
		t.Fatal(err)
	}
	components, err := licences.FromBundle(dir)
	if err != nil {
		t.Fatal(err)
	}
	return attest.Bundle{Manifest: built, Components: components}
}

// inventory returns that of a release with two bundles. Their toolchains share one
// package and have different versions of another.
func inventory(t *testing.T) attest.Inventory {
	t.Helper()
	gcc := func(version, sum string) bundle.Package {
		return bundle.Package{Name: "gcc", Version: version, Arch: "amd64", SHA256: strings.Repeat(sum, 64)}
	}
	text := []licences.Text{{Name: "LICENSE", Body: "Terms.\n"}}
	return attest.Inventory{
		Version: "0.2.0", Epoch: time.Unix(1790000000, 0),
		Linked: []licences.Component{
			{Kind: licences.GoModule, Name: "github.com/Some/Mod", Version: "v1.2.3", Sum: "h1:Khu2En+0gcYPZ2kuIihfswbzxv/mIHXgzPZ018Oty48=", Licences: []string{"Apache-2.0", "MIT"}, Texts: text},
			{Kind: licences.GoRuntime, Name: "go", Version: "1.26.1", Licences: []string{"BSD-3-Clause"}, Holders: []string{"2009 The Go Authors"}, Texts: text},
			{Kind: licences.WebPage, Name: "@s/page", Version: "1.0.0", PURL: purlPage, Sum: "sha512-AAAA", Licences: []string{"MIT"}, Texts: text},
		},
		Bundles: []attest.Bundle{
			smallBundle(t, bundle.Manifest{Variant: "hip", Targets: []gfx.Target{gfx.MustParse("gfx1100")}, Toolchain: bundle.Toolchain{BaseDigest: "sha256:" + strings.Repeat("b", 64)}},
				gcc("4:15.3", "e"), bundle.Package{Name: "libhip", Version: "6.4-1", Arch: "amd64", SHA256: strings.Repeat("f", 64)}),
			smallBundle(t, bundle.Manifest{Variant: "cpu"}, gcc("4:15.2", "c")),
		},
	}
}

// cpu returns the CPU bundle of the inventory.
func cpu(m attest.Inventory) attest.Bundle { return m.Bundles[1] }

const (
	purlHIP   = "pkg:deb/debian/libhip@6.4-1?arch=amd64"
	purlX1    = "pkg:deb/debian/libx1@1:2.0%2Bdfsg-1?arch=amd64"
	purlGo    = "pkg:generic/go@1.26.1"
	purlLlama = "pkg:github/ggml-org/llama.cpp@v0.5.0"
	purlMod   = "pkg:golang/github.com/some/mod@v1.2.3"
	purlPage  = "pkg:npm/%40s/page@1.0.0"
)

var wantPURLs = []string{purlHIP, purlX1, purlGo, purlLlama, purlMod, purlPage}

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
	t.Parallel()
	m := inventory(t)
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
		if c.PackageURL != "" {
			purls = append(purls, c.PackageURL)
		}
	}
	if diff := cmp.Diff(wantPURLs, purls); diff != "" {
		t.Errorf("components (-want +got):\n%s", diff)
	}
	inside := map[string][]string{}
	for _, d := range *bom.Dependencies {
		inside[d.Ref] = *d.Dependencies
	}
	want := map[string][]string{
		bom.Metadata.Component.BOMRef: {purlGo, purlMod, purlPage, "bundle:llama-cpu", "bundle:llama-hip"},
		"bundle:llama-cpu":            {purlX1, purlLlama},
		"bundle:llama-hip":            {purlHIP, purlX1, purlLlama},
	}
	if diff := cmp.Diff(want, inside); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
	if h := *(*bom.Components)[1].Hashes; h[0].Value != strings.Repeat("d", 64) {
		t.Errorf("hash of the package file: %v", h)
	}
	if bom.SpecVersion != cdx.SpecVersion1_6 || bom.Metadata.Timestamp != "2026-09-21T14:13:20Z" {
		t.Errorf("spec %s, time %s", bom.SpecVersion, bom.Metadata.Timestamp)
	}
}

func TestSPDX(t *testing.T) {
	t.Parallel()
	m := inventory(t)
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
	names := map[common.ElementID]string{}
	var purls []string
	for _, p := range doc.Packages {
		names[p.PackageSPDXIdentifier] = p.PackageName
		if p.PackageName == "go-rocm" || strings.HasPrefix(p.PackageName, "llama-") {
			continue
		}
		purls = append(purls, p.PackageExternalReferences[0].Locator)
	}
	if diff := cmp.Diff(wantPURLs, purls); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}
	inside := map[string][]string{}
	for _, r := range doc.Relationships {
		if r.Relationship == "CONTAINS" {
			inside[names[r.RefA.ElementRefID]] = append(inside[names[r.RefA.ElementRefID]], names[r.RefB.ElementRefID])
		}
	}
	want := map[string][]string{
		"go-rocm":   {"llama-cpu", "llama-hip", "go", "github.com/Some/Mod", "@s/page"},
		"llama-cpu": {"libx1", "llama.cpp"},
		"llama-hip": {"libhip", "libx1", "llama.cpp"},
	}
	if diff := cmp.Diff(want, inside); diff != "" {
		t.Errorf("contents (-want +got):\n%s", diff)
	}
	texts := map[string]string{}
	for _, l := range doc.OtherLicenses {
		texts[l.LicenseIdentifier] = l.ExtractedText
	}
	for _, p := range doc.Packages[len(want):] {
		if texts[p.PackageLicenseDeclared] == "" {
			t.Errorf("%s: its licence %q has no text", p.PackageName, p.PackageLicenseDeclared)
		}
	}
}

// The documents and their unique names depend on the inventory only.
func TestSBOMsAreReproducible(t *testing.T) {
	for name, write := range map[string]func(attest.Inventory) ([]byte, error){"CycloneDX": attest.CycloneDX, "SPDX": attest.SPDX} {
		t.Run(name, func(t *testing.T) {
			m := inventory(t)
			first, err := write(m)
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("TZ", "Pacific/Chatham")
			m.Epoch = m.Epoch.In(time.FixedZone("x", 3600))
			for _, b := range m.Bundles {
				slices.Reverse(b.Components)
			}
			slices.Reverse(m.Bundles)
			slices.Reverse(m.Linked)
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

func TestSBOMsRejectInconsistentInventories(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*attest.Inventory)
		want   string
	}{
		"no bundles":          {func(m *attest.Inventory) { m.Bundles = nil }, "bundles"},
		"no manifest":         {func(m *attest.Inventory) { m.Bundles[0].Manifest = nil }, "manifest"},
		"an empty bundle":     {func(m *attest.Inventory) { m.Bundles[0].Components = nil }, "components"},
		"nothing linked":      {func(m *attest.Inventory) { m.Linked = nil }, "linked components"},
		"duplicate bundle":    {func(m *attest.Inventory) { m.Bundles[0] = m.Bundles[1] }, "duplicate bundle llama-cpu"},
		"unknown package":     {func(m *attest.Inventory) { cpu(*m).Manifest.Toolchain.Packages = nil }, "lists no package with that name"},
		"unknown kind":        {func(m *attest.Inventory) { m.Linked[0].Kind = "rust" }, `"rust"`},
		"linked in a bundle":  {func(m *attest.Inventory) { cpu(*m).Components[0].Kind = licences.GoModule }, `"go"`},
		"duplicate linked":    {func(m *attest.Inventory) { m.Linked = append(m.Linked, m.Linked[0]) }, "duplicate"},
		"duplicate in bundle": {func(m *attest.Inventory) { b := &m.Bundles[1]; b.Components = append(b.Components, b.Components[0]) }, "duplicate"},
		"one with different digests": {func(m *attest.Inventory) {
			packages := cpu(*m).Manifest.Toolchain.Packages
			packages[len(packages)-1].SHA256 = strings.Repeat("0", 64)
		}, "differs between llama-cpu and llama-hip"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, write := range []func(attest.Inventory) ([]byte, error){attest.CycloneDX, attest.SPDX} {
				m := inventory(t)
				tc.change(&m)
				out, err := write(m)
				if !errors.Is(err, attest.ErrInventory) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %d bytes, %v; want an error about %q", len(out), err, tc.want)
				}
			}
		})
	}
}
