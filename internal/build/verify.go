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

func (s *Session) verify(ctx context.Context, m *bundle.Manifest) error {
	v, err := s.recorded(m)
	if err != nil {
		return err
	}
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	return s.rebuild(ctx, m, func(ctx context.Context, dir string) (string, error) {
		made := filepath.Join(s.Settings.Cache, "stages")
		if s.Recipe.Cache, err = stage.Open(dir); err != nil {
			return "", err
		}
		if m.Toolchain.BaseDigest != "" {
			if err := takeImages(made, dir); err != nil {
				return "", err
			}
		}
		if err := s.Recipe.SameInputs(ctx, v, m); err != nil {
			return "", err
		}
		if err := s.samePackages(ctx, v, m); err != nil {
			return "", err
		}
		res, err := s.Recipe.Bundle(ctx, v)
		if err != nil {
			return "", err
		}
		return res.Dir, nil
	})
}

// recorded gives the variant that a manifest is of, and has its targets built. It
// fails where this checkout or the settings would make another one.
func (s *Session) recorded(m *bundle.Manifest) (recipe.Variant, error) {
	v, err := recipe.VariantNamed(m.Variant)
	if err != nil {
		return v, err
	}
	if v, err = v.In(m.Flavour); err != nil {
		return v, err
	}
	if m.Source.Tree != s.Recipe.Lock.Tree {
		return v, fmt.Errorf("the manifest is of source tree %s, this checkout builds %s: use the checkout of that release", m.Source.Tree, s.Recipe.Lock.Tree)
	}
	if len(m.Targets) > 0 {
		s.Recipe.Targets = m.Targets
	}
	return v, s.Recipe.SameToolchain(v, m)
}

// rebuild has a bundle built below a folder of its own and compares it with m.
// What is not as m says stays there to be looked at; else nothing does.
func (s *Session) rebuild(ctx context.Context, m *bundle.Manifest, build func(ctx context.Context, dir string) (string, error)) (err error) {
	dir, err := os.MkdirTemp(s.Settings.Cache, "verify-")
	if err != nil {
		return err
	}
	var differs *bundle.VerifyError
	defer func() {
		if differs == nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	built, err := build(ctx, filepath.Join(dir, "stages"))
	if err != nil {
		return err
	}
	err = bundle.Verify(ctx, built, m)
	if errors.As(err, &differs) {
		return fmt.Errorf("what was built is not what the manifest records: %s\nit stays there to be compared, until it is removed or `mage prune` does that: %s", differs.Details(), dir)
	}
	if err != nil {
		return err
	}
	return s.say("verify: %d files of %s are bit for bit what the manifest records (%s)", len(m.Files), m.Name, m.Digest())
}

// takeImages has the second build compile in the very images of the first: to add
// tools to a given image gives one of another digest each time.
func takeImages(from, to string) error {
	images, err := filepath.Glob(filepath.Join(from, "toolchain-*", "stage.json"))
	if err != nil {
		return err
	}
	for _, found := range images {
		dir := filepath.Dir(found)
		if strings.HasSuffix(dir, ".part") {
			continue
		}
		if err := take(dir, filepath.Join(to, filepath.Base(dir))); err != nil {
			return fmt.Errorf("take over %s: %w", filepath.Base(dir), err)
		}
	}
	return nil
}

// samePackages says which packages of the toolchain differ from the recorded
// ones, and whether its image does where one was given, before half an hour is
// spent on a build that cannot come out the same.
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
		return fmt.Errorf("the toolchain has other packages than the manifest records, so the files cannot come out the same:\n  %s", joinLines(diff))
	}
	if spec.Image() && t.ID != m.Toolchain.BaseDigest {
		return fmt.Errorf("the manifest is of what was compiled in the image %s, this build would be in %s: set GOROCM_BASE_IMAGE as it was then, and GOROCM_CACHE to the cache folder of that build, which knows the image",
			m.Toolchain.BaseDigest, t.ID)
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
