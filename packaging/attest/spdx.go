package attest

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	spdx "github.com/spdx/tools-golang/spdx/v2/v2_3"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

const noAssertion = "NOASSERTION"

// SPDX returns the bill of materials as SPDX 2.3 JSON
// (https://spdx.github.io/spdx-spec/v2.3/). It quotes the collected licence texts
// in LicenseRef entries. The release contains the components that are linked into
// the command and its bundles; each bundle contains its components. The same
// inventory produces the same bytes.
func SPDX(m Inventory) ([]byte, error) {
	m, err := m.complete()
	if err != nil {
		return nil, err
	}
	parts, err := m.parts()
	if err != nil {
		return nil, err
	}
	id, err := m.identity(parts)
	if err != nil {
		return nil, err
	}
	doc := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT",
		DocumentName:      "go-rocm-" + m.Version,
		DocumentNamespace: "https://forge.lthn.ai/core/go-rocm/spdx/" + id,
		CreationInfo: &spdx.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "go-rocm-" + m.Version}},
			Created:  m.Epoch.UTC().Format(time.RFC3339),
		},
	}
	root := &spdx.Package{
		PackageName: "go-rocm", PackageSPDXIdentifier: "Package-go-rocm", PackageVersion: m.Version,
		PackageDownloadLocation: "https://forge.lthn.ai/core/go-rocm",
		PackageLicenseConcluded: "MIT", PackageLicenseDeclared: "MIT", PackageCopyrightText: noAssertion,
		PackageExternalReferences: purlReference(rootPURL(m)),
	}
	doc.Packages = append(doc.Packages, root)
	doc.Relationships = append(doc.Relationships, relation("DOCUMENT", "DESCRIBES", root))
	bundles := map[string]*spdx.Package{}
	for _, b := range m.Bundles {
		pkg := describeBundle(b.Manifest)
		bundles[b.Manifest.Name] = pkg
		doc.Packages = append(doc.Packages, pkg)
		doc.Relationships = append(doc.Relationships, relation(root.PackageSPDXIdentifier, "CONTAINS", pkg))
	}
	for i, p := range parts {
		pkg := describePart(i, p)
		doc.Packages = append(doc.Packages, pkg)
		if len(p.bundles) == 0 {
			doc.Relationships = append(doc.Relationships, relation(root.PackageSPDXIdentifier, "CONTAINS", pkg))
		}
		for _, name := range p.bundles {
			doc.Relationships = append(doc.Relationships, relation(bundles[name].PackageSPDXIdentifier, "CONTAINS", pkg))
		}
		doc.OtherLicenses = append(doc.OtherLicenses, &spdx.OtherLicense{
			LicenseIdentifier: licenceRef(i), LicenseName: "terms of " + p.Name, ExtractedText: allTexts(p),
		})
	}
	var b bytes.Buffer
	if err := spdxjson.Write(doc, &b, spdxjson.Indent("  ")); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInventory, err)
	}
	return b.Bytes(), nil
}

func relation(from common.ElementID, kind string, to *spdx.Package) *spdx.Relationship {
	return &spdx.Relationship{
		RefA:         common.MakeDocElementID("", string(from)),
		RefB:         common.MakeDocElementID("", string(to.PackageSPDXIdentifier)),
		Relationship: kind,
	}
}

func licenceRef(i int) string { return fmt.Sprintf("LicenseRef-%d", i+1) }

func allTexts(p part) string {
	var bodies []string
	for _, t := range p.Texts {
		bodies = append(bodies, t.Body)
	}
	return strings.Join(bodies, "\n")
}

func purlReference(purl string) []*spdx.PackageExternalReference {
	return []*spdx.PackageExternalReference{{
		Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl,
	}}
}

// describeBundle returns a bundle as an SPDX package. Its licences are those of its
// parts.
func describeBundle(m *bundle.Manifest) *spdx.Package {
	return &spdx.Package{
		PackageName: m.Name, PackageSPDXIdentifier: common.ElementID("Package-" + m.Name), PackageVersion: m.Version,
		PackageDownloadLocation: noAssertion,
		PackageLicenseConcluded: noAssertion, PackageLicenseDeclared: noAssertion, PackageCopyrightText: noAssertion,
		PackageComment: "manifest sha256:" + m.Digest(),
	}
}

// describePart returns a part as an SPDX package.
func describePart(i int, p part) *spdx.Package {
	pkg := &spdx.Package{
		PackageName:               p.Name,
		PackageSPDXIdentifier:     common.ElementID(fmt.Sprintf("Package-%d", i+1)),
		PackageVersion:            p.version,
		PackageDownloadLocation:   noAssertion,
		PackageLicenseConcluded:   noAssertion,
		PackageLicenseDeclared:    licenceRef(i),
		PackageCopyrightText:      noAssertion,
		PackageExternalReferences: purlReference(p.purl),
	}
	if len(p.Licences) > 0 {
		pkg.PackageLicenseComments = "recognised in the text: " + strings.Join(p.Licences, ", ")
	}
	if len(p.Holders) > 0 {
		pkg.PackageCopyrightText = strings.Join(p.Holders, "\n")
	}
	if p.sha256 != "" {
		pkg.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: p.sha256}}
	}
	var facts []string
	for _, f := range p.facts {
		facts = append(facts, f.name+" "+f.value)
	}
	pkg.PackageSourceInfo = strings.Join(facts, "; ")
	return pkg
}
