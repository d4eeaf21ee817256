package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Verify builds again, from nothing but the source, what a manifest records,
// and compares every file. It takes as long as a first build.
func Verify(manifest string) error {
	return within(func(ctx context.Context, s *Session) error {
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

func (s *Session) verify(ctx context.Context, m *bundle.Manifest) (err error) {
	v, err := recipe.VariantNamed(m.Variant)
	if err != nil {
		return err
	}
	if v, err = v.In(m.Flavour); err != nil {
		return err
	}
	if m.Source.Tree != s.Recipe.Lock.Tree {
		return fmt.Errorf("the manifest is of source tree %s, this checkout builds %s: use the checkout of that release", m.Source.Tree, s.Recipe.Lock.Tree)
	}
	if len(m.Targets) > 0 {
		s.Recipe.Targets = m.Targets
	}
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.Settings.Cache, "verify-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if s.Recipe.Cache, err = stage.Open(filepath.Join(dir, "stages")); err != nil {
		return err
	}
	if err := s.samePackages(ctx, v, m); err != nil {
		return err
	}
	res, err := s.Recipe.Bundle(ctx, v)
	if err != nil {
		return err
	}
	if err := bundle.Verify(ctx, res.Dir, m); err != nil {
		return fmt.Errorf("what was built is not what the manifest records: %w", err)
	}
	return s.say("verify: %d files of %s are bit for bit what the manifest records (%s)", len(m.Files), m.Name, m.Digest())
}

// samePackages says which packages of the toolchain differ from the recorded
// ones, before half an hour is spent on a build that cannot come out the same.
func (s *Session) samePackages(ctx context.Context, v recipe.Variant, m *bundle.Manifest) error {
	spec := s.Recipe.Toolchain
	spec.Set = v.Set
	t, err := toolchain.Describe(ctx, s.Recipe.Engine, s.Recipe.Cache, spec, s.Out)
	if err != nil {
		return err
	}
	var recorded []toolchain.Package
	for _, p := range m.Toolchain.Packages {
		recorded = append(recorded, toolchain.Package(p))
	}
	if diff := toolchain.Compare(recorded, t.Packages); len(diff) > 0 {
		return fmt.Errorf("the archive has other packages than the manifest records, so the files cannot come out the same:\n  %s", joinLines(diff))
	}
	return nil
}

// joinLines joins the first lines and counts the others.
func joinLines(lines []string) string {
	const most = 20
	if len(lines) > most {
		lines = append(slices.Clip(lines[:most]), fmt.Sprintf("and %d more", len(lines)-most))
	}
	return strings.Join(lines, "\n  ")
}
