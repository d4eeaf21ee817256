package build

import (
	"context"
	"encoding/json"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// builderID identifies the builder in the provenance: the recipe of this project,
// not the machine that ran it.
const builderID = "https://forge.lthn.ai/core/go-rocm/mage-release"

// attestInto writes the bills of materials in both formats and the provenance. With
// a key the provenance is a signed envelope, without one the bare statement.
func (s *Session) attestInto(ctx context.Context, d *delivery) error {
	m := attest.Inventory{Version: d.version, Epoch: s.Epoch}
	var err error
	if m.Linked, err = linkedComponents(ctx, filepath.Join(d.dir, commandName), d.page); err != nil {
		return err
	}
	for _, p := range d.packed {
		b := attest.Bundle{Manifest: p.Manifest}
		if b.Components, err = licences.FromBundle(p.Bundle.Dir); err != nil {
			return err
		}
		m.Bundles = append(m.Bundles, b)
	}
	for name, write := range map[string]func(attest.Inventory) ([]byte, error){
		"go-rocm.cdx.json": attest.CycloneDX, "go-rocm.spdx.json": attest.SPDX,
	} {
		b, err := write(m)
		if err != nil {
			return err
		}
		if err := writePublic(filepath.Join(d.dir, name), b); err != nil {
			return err
		}
	}
	return s.provenanceInto(ctx, d, m)
}

// linkedComponents returns the third-party modules in the command, and the parts of the
// web page in it, which may be nil.
func linkedComponents(ctx context.Context, command string, page *recipe.Page) ([]licences.Component, error) {
	modules, err := goEnv(ctx, "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	goRoot, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return nil, err
	}
	linked, err := licences.FromProgram(command, modules, goRoot)
	if err != nil || page == nil {
		return linked, err
	}
	parts, err := licences.FromPage(page.Components())
	return append(linked, parts...), err
}

// provenanceInto writes the provenance of the files in the delivery. The list of
// the module's versions is not a subject: like the indexes of the apt repository it
// describes everything that has been published, and earlier versions are added to it
// later.
func (s *Session) provenanceInto(ctx context.Context, d *delivery, m attest.Inventory) error {
	revision, err := s.revision(ctx, d.root)
	if err != nil {
		return err
	}
	subjects, err := release.ComputeChecksums(ctx, d.dir)
	if err != nil {
		return err
	}
	subjects = slices.DeleteFunc(subjects, func(sum release.Checksum) bool { return goproxy.IsVersionList(sum.Path) })
	statement, err := attest.Provenance(m, subjects, revision, builderID)
	if err != nil {
		return err
	}
	signer, err := s.provenanceSigner()
	if err != nil {
		return err
	}
	if signer == nil {
		b, err := json.MarshalIndent(statement, "", "  ")
		if err != nil {
			return err
		}
		return writePublic(filepath.Join(d.dir, "provenance.json"), append(b, '\n'))
	}
	envelope, err := release.SignStatement(ctx, statement, signer)
	if err != nil {
		return err
	}
	return writePublic(filepath.Join(d.dir, release.ProvenanceFile), envelope)
}
