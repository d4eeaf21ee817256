package build

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// Build builds the bundles, embeds one of them and compiles the command into the
// dist directory.
func Build() error {
	return withCheckout(func(ctx context.Context, s *Session) error {
		return s.deliver(ctx, nil, s.buildInto)
	})
}

// Package does the work of Build and builds the Debian packages.
func Package() error {
	return withCheckout(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		if err := s.checkPackageVersion(root); err != nil {
			return err
		}
		return s.deliver(ctx, nil, s.buildInto, s.packageInto)
	})
}

// Release builds everything that is published, with checksums and signatures. If
// the settings demand it, a release that a second build does not reproduce is not
// delivered.
func Release() error {
	return withCheckout(func(ctx context.Context, s *Session) error {
		if s.Settings.MustReproduce() {
			return s.release(ctx, s.reproduceInto)
		}
		return s.release(ctx)
	})
}

// release delivers everything that is published; more are further steps at the
// end.
func (s *Session) release(ctx context.Context, more ...step) error {
	start := time.Now()
	root, err := Root()
	if err != nil {
		return err
	}
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	if err := s.checkPackageVersion(root); err != nil {
		return err
	}
	// Report problems with git and unusable keys now and not after an hour.
	if err := s.checkGit(ctx, root); err != nil {
		return err
	}
	if _, err := s.publicKeys(ctx, root); err != nil {
		return err
	}
	if err := s.checkCommitted(ctx, root); err != nil {
		return err
	}
	steps := []step{s.buildInto, s.packageInto, s.imageInto, s.monitoringInto, s.moduleInto, s.attestInto, s.earlierModulesInto, s.aptInto, s.checksumInto, s.verifyRelease}
	if err := s.deliver(ctx, s.publicationRecords(), append(steps, more...)...); err != nil {
		return err
	}
	return s.printf("release: finished in %s", time.Since(start).Round(100*time.Millisecond))
}

func (s *Session) buildInto(ctx context.Context, d *delivery) (err error) {
	if d.packed, err = s.Bundles(ctx); err != nil {
		return err
	}
	if err := s.checkSizes(d.packed); err != nil {
		return err
	}
	for _, p := range d.packed {
		if err := copyFile(p.File, filepath.Join(d.dir, filepath.Base(p.File)), 0o644); err != nil {
			return err
		}
	}
	chosen, err := findBundle(d.packed, s.Settings.Embed)
	if err != nil {
		return err
	}
	if err := s.EmbedBundle(d.root, chosen); err != nil {
		return err
	}
	if d.page, err = s.embeddedPage(ctx, d.root); err != nil {
		return err
	}
	return s.command(ctx, d.root, filepath.Join(d.dir, commandName), d.version)
}

// checksumInto writes the list of checksums and signs it by each key that the
// settings name.
func (s *Session) checksumInto(ctx context.Context, d *delivery) error {
	if err := release.WriteChecksums(ctx, d.dir); err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(d.dir, release.ChecksumsFile))
	if err != nil {
		return err
	}
	signer, err := s.minisignSigner()
	if err != nil {
		return err
	}
	if signer != nil {
		sig, err := signer.Sign(list, "go-rocm "+d.version)
		if err != nil {
			return err
		}
		if err := writePublic(filepath.Join(d.dir, release.MinisignFile), sig); err != nil {
			return err
		}
	}
	o, err := s.aptOptions(ctx, d.root)
	if err != nil || o == nil || o.Keys == nil {
		return err
	}
	sig, err := o.Keys.Sign(list, o.Date)
	if err != nil {
		return err
	}
	return writePublic(filepath.Join(d.dir, release.OpenPGPFile), sig)
}

// verifyRelease verifies a delivery as its recipients do, with the public half of
// each key of the settings, so that no release lacks a signature.
func (s *Session) verifyRelease(ctx context.Context, d *delivery) error {
	keys, err := s.publicKeys(ctx, d.root)
	if err != nil || keys == (release.TrustedKeys{}) {
		return err
	}
	r, err := release.Verify(ctx, d.dir, keys)
	if err != nil {
		return fmt.Errorf("recipients would reject the release: %w", err)
	}
	return s.printf("signed: %s", strings.Join(r.Signatures, ", "))
}

// publicKeys returns the public halves of the keys of the settings.
func (s *Session) publicKeys(ctx context.Context, root string) (keys release.TrustedKeys, err error) {
	minisign, err := s.minisignSigner()
	if err != nil {
		return keys, err
	}
	if minisign != nil {
		keys.Minisign = minisign.Verifier()
	}
	provenance, err := s.provenanceSigner()
	if err != nil {
		return keys, err
	}
	if provenance != nil {
		keys.Provenance = provenance.Verifier()
	}
	o, err := s.aptOptions(ctx, root)
	if err != nil || o == nil || o.Keys == nil {
		return keys, err
	}
	text, err := o.Keys.Keyring()
	if err != nil {
		return keys, err
	}
	keys.OpenPGP, err = release.ParseOpenPGPVerifier(text)
	return keys, err
}

// maxSigningKey limits the file of a signing key, in bytes.
const maxSigningKey = 1 << 20

// readSigningKey returns the text of a private key that other users may neither read
// nor write.
func (s *Session) readSigningKey(name string) ([]byte, error) {
	return regfile.ReadSecret(name, maxSigningKey, func(text string) { _ = s.printf("warning: %s", text) })
}

// minisignSigner opens the key that signs the list of checksums; it is nil when
// the settings name none.
func (s *Session) minisignSigner() (*release.MinisignSigner, error) {
	if s.Settings.MinisignKey == "" {
		return nil, nil //nolint:nilnil // signing is optional
	}
	text, err := s.readSigningKey(s.Settings.MinisignKey)
	if err != nil {
		return nil, fmt.Errorf("GOROCM_MINISIGN_KEY: %w", err)
	}
	signer, err := release.ParseMinisignSigner(text, string(s.Settings.MinisignPassword))
	if err != nil {
		return nil, fmt.Errorf("GOROCM_MINISIGN_KEY: %w", err)
	}
	return signer, nil
}

// provenanceSigner opens the key that signs the provenance; it is nil when the
// settings name none.
func (s *Session) provenanceSigner() (*release.ProvenanceSigner, error) {
	if s.Settings.SigningKey == "" {
		return nil, nil //nolint:nilnil // signing is optional
	}
	key, err := s.readSigningKey(s.Settings.SigningKey)
	if err != nil {
		return nil, fmt.Errorf("GOROCM_SIGNING_KEY: %w", err)
	}
	signer, err := release.ParseProvenanceSigner(key)
	if err != nil {
		return nil, fmt.Errorf("GOROCM_SIGNING_KEY: %w", err)
	}
	return signer, nil
}
