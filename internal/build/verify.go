package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Verify builds the bundle of a manifest from source and compares every file with
// the manifest. It takes as long as a first build.
func Verify(manifest string) error {
	return withSession(func(ctx context.Context, s *Session) error {
		b, err := os.ReadFile(manifest)
		if err != nil {
			return err
		}
		m, err := bundle.ParseManifest(b)
		if err != nil {
			return fmt.Errorf("%s: %w", manifest, err)
		}
		return s.verify(ctx, m)
	})
}

func (s *Session) verify(ctx context.Context, m *bundle.Manifest) error {
	v, err := s.variantOf(m)
	if err != nil {
		return err
	}
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	return s.rebuild(ctx, m, func(ctx context.Context, dir string) (string, error) {
		firstStages := filepath.Join(s.Settings.Cache, "stages")
		if s.Recipe.Cache, err = stage.Open(dir); err != nil {
			return "", err
		}
		if m.Toolchain.BaseDigest != "" {
			if err := reuseImages(firstStages, dir); err != nil {
				return "", err
			}
		}
		if err := s.Recipe.CheckInputs(ctx, v, m); err != nil {
			return "", err
		}
		if err := s.checkPackages(ctx, v, m); err != nil {
			return "", err
		}
		res, err := s.Recipe.Bundle(ctx, v)
		if err != nil {
			return "", err
		}
		return res.Dir, nil
	})
}

// variantOf returns the variant of a manifest and selects its targets. It returns
// an error if this checkout or the settings would build something else.
func (s *Session) variantOf(m *bundle.Manifest) (recipe.Variant, error) {
	v, err := recipe.VariantByName(m.Variant)
	if err != nil {
		return v, err
	}
	if v, err = v.WithFlavour(m.Flavour); err != nil {
		return v, err
	}
	if m.Source.Tree != s.Recipe.Lock.Tree {
		return v, fmt.Errorf("the manifest records source tree %s, this checkout builds %s: use the checkout of that release", m.Source.Tree, s.Recipe.Lock.Tree)
	}
	if len(m.Targets) > 0 {
		s.Recipe.Targets = m.Targets
	}
	return v, s.Recipe.CheckToolchain(v, m)
}

// rebuild calls build with a new directory and compares the bundle with m. It
// keeps a bundle that differs, for inspection, and removes everything else.
func (s *Session) rebuild(ctx context.Context, m *bundle.Manifest, build func(ctx context.Context, dir string) (string, error)) (err error) {
	dir, err := s.tempWork("verify")
	if err != nil {
		return err
	}
	var differs *bundle.VerifyError
	defer func() {
		if differs == nil {
			err = errors.Join(err, removeWork(dir))
		}
	}()
	built, err := build(ctx, filepath.Join(dir, "stages"))
	if err != nil {
		return err
	}
	err = bundle.Verify(ctx, built, m)
	if errors.As(err, &differs) {
		return fmt.Errorf("the bundle differs from the manifest: %s\nit is kept for comparison until you or `mage prune` remove it: %s", differs.Details(), dir)
	}
	if err != nil {
		return err
	}
	return s.printf("verify: %d files of %s are identical bit for bit to the manifest (%s)", len(m.Files), m.Name, m.Digest())
}

// reuseImages copies the toolchain stages, so that the second build compiles in the
// images of the first: adding tools to a base image yields another digest each time.
func reuseImages(from, to string) error {
	images, err := filepath.Glob(filepath.Join(from, "toolchain-*", "stage.json"))
	if err != nil {
		return err
	}
	for _, found := range images {
		dir := filepath.Dir(found)
		if strings.HasSuffix(dir, ".part") {
			continue
		}
		if err := copyStage(dir, filepath.Join(to, filepath.Base(dir))); err != nil {
			return fmt.Errorf("copy the stage %s: %w", filepath.Base(dir), err)
		}
	}
	return nil
}

// checkPackages returns an error if the packages of the toolchain, or its base
// image, differ from the recorded ones: a build of half an hour could not produce
// the same files.
func (s *Session) checkPackages(ctx context.Context, v recipe.Variant, m *bundle.Manifest) error {
	packages, t, err := s.Recipe.Packages(ctx, v)
	if err != nil {
		return err
	}
	var recorded []toolchain.Package
	for _, p := range m.Toolchain.Packages {
		recorded = append(recorded, toolchain.Package(p))
	}
	if diff := toolchain.Compare(recorded, packages); len(diff) > 0 {
		return fmt.Errorf("the packages of the toolchain differ from the manifest, so the files would differ too:\n  %s", joinLines(diff))
	}
	if s.Recipe.Toolchain.HasBaseImage() && t.ID != m.Toolchain.BaseDigest {
		return fmt.Errorf("the bundle was compiled in the image %s, this build would use %s: set GOROCM_BASE_IMAGE as for that build, and GOROCM_CACHE to the cache directory of that build, which records the image",
			m.Toolchain.BaseDigest, t.ID)
	}
	return nil
}
