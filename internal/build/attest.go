package build

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// builderID names what built a release in its provenance: this recipe, on
// whatever machine ran it.
const builderID = "https://forge.lthn.ai/core/go-rocm/mage-release"

// attestInto writes what a receiver traces a release by: bills of materials in
// both formats, and where each file came from. With a key the provenance is a
// signed envelope, without one the bare statement.
func (s *Session) attestInto(ctx context.Context, d *delivery) error {
	m := attest.Inventory{Version: d.version, Epoch: s.Epoch}
	var err error
	if m.Linked, err = linked(ctx, filepath.Join(d.dir, commandName)); err != nil {
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
		if err := publish(filepath.Join(d.dir, name), b); err != nil {
			return err
		}
	}
	return s.provenanceInto(ctx, d, m)
}

// linked lists other people's work in the command.
func linked(ctx context.Context, command string) ([]licences.Component, error) {
	modules, err := goEnv(ctx, "GOMODCACHE")
	if err != nil {
		return nil, err
	}
	goRoot, err := goEnv(ctx, "GOROOT")
	if err != nil {
		return nil, err
	}
	return licences.FromProgram(command, modules, goRoot)
}

// provenanceInto states where the files of the delivery came from. The list of a
// module's versions is no subject: like the indexes of the apt repository it is
// about all that is published, and gets the earlier versions later.
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
		return publish(filepath.Join(d.dir, "provenance.json"), append(b, '\n'))
	}
	envelope, err := release.SignStatement(ctx, statement, signer)
	if err != nil {
		return err
	}
	return publish(filepath.Join(d.dir, release.ProvenanceFile), envelope)
}

// publish writes a deliverable that anybody may read, whatever the umask.
func publish(name string, b []byte) error {
	if err := os.WriteFile(name, b, 0o600); err != nil {
		return err
	}
	return os.Chmod(name, 0o644) //nolint:gosec // anybody may read what is published
}

// provenanceSigner opens the key for the provenance; nil when none is given.
func (s *Session) provenanceSigner() (*release.ProvenanceSigner, error) {
	if s.Settings.SigningKey == "" {
		return nil, nil //nolint:nilnil // signing is asked for or it is not
	}
	key, err := os.ReadFile(s.Settings.SigningKey)
	if err != nil {
		return nil, fmt.Errorf("GOROCM_SIGNING_KEY: %w", err)
	}
	signer, err := release.ParseProvenanceSigner(key)
	if err != nil {
		return nil, fmt.Errorf("GOROCM_SIGNING_KEY: %w", err)
	}
	return signer, nil
}
