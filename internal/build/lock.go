package build

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// Lock records the packages of the toolchain images, the digest of AMD's image if
// the registry is reachable, and the sizes of the bundles.
func Lock() error {
	return withSession(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		if err := s.prepare(ctx, buildPrograms); err != nil {
			return err
		}
		if err := s.lockToolchain(ctx, root); err != nil {
			return err
		}
		return s.lockSizes(ctx, root)
	})
}

// lockSizes records the sizes of the bundles. It returns an error for a size above
// its limit: the limits are fixed.
func (s *Session) lockSizes(ctx context.Context, root string) error {
	packed, err := s.Bundles(ctx)
	if err != nil {
		return err
	}
	all, err := recipe.RecordedSizes()
	if err != nil {
		return err
	}
	for _, p := range packed {
		now, err := p.Sizes()
		if err != nil {
			return err
		}
		if err := recipe.CheckSizeLimits(p.Label, now); err != nil {
			return err
		}
		all[p.Label] = now
	}
	b, err := recipe.FormatSizes(all)
	if err != nil {
		return err
	}
	return regfile.Replace(filepath.Join(root, "docker", "recipe", "sizes.lock.json"), b, 0o644)
}

func (s *Session) lockToolchain(ctx context.Context, root string) error {
	spec := s.Recipe.Toolchain
	spec.Kind, spec.BaseImage, spec.Locked = "debian", "", false
	variants, err := s.Variants()
	if err != nil {
		return err
	}
	for _, set := range append(recipe.Sets(variants), toolchain.UI) {
		spec.Set = set
		t, err := toolchain.Describe(ctx, s.Recipe.Engine, s.Recipe.Cache, spec, s.Out)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "# Debian %s with the tools of the %s set: name, version, architecture, SHA-256 of the package.\n", spec.Suite, set)
		if err := toolchain.FormatLock(&b, t.Packages); err != nil {
			return err
		}
		if err := s.writeLock(root, toolchain.LockName(set), b.Bytes()); err != nil {
			return err
		}
		if err := s.printf("lock: %s: %d packages, %d changes", toolchain.LockName(set), len(t.Packages), len(t.Deviations)); err != nil {
			return err
		}
		if err := s.lockLLVM(ctx, root, spec, t); err != nil {
			return err
		}
	}
	digest, err := s.Recipe.Engine.Resolve(ctx, toolchain.AMDReference)
	if err != nil {
		return s.printf("lock: the digest of AMD's image is unchanged: %v", err)
	}
	var b bytes.Buffer
	if err := toolchain.FormatAMDLock(&b, digest); err != nil {
		return err
	}
	return s.writeLock(root, "amd.lock", b.Bytes())
}

// lockLLVM records the package with the object files of a toolchain's libLLVM, if
// the toolchain has libLLVM.
func (s *Session) lockLLVM(ctx context.Context, root string, spec toolchain.Spec, t *toolchain.Toolchain) error {
	l, ok, err := toolchain.FindLLVM(t.Packages)
	if err != nil || !ok {
		return err
	}
	pkg, err := toolchain.Fetch(ctx, s.Recipe.Engine, s.Recipe.Cache, spec, t, l.Development, s.Out)
	if err != nil {
		return err
	}
	if l.Development.SHA256, err = stage.FileDigest(filepath.Join(pkg.Dir, toolchain.FetchedPackage)); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := toolchain.FormatLLVMLock(&b, l.Development); err != nil {
		return err
	}
	if err := s.writeLock(root, toolchain.LLVMLockName, b.Bytes()); err != nil {
		return err
	}
	return s.printf("lock: %s: %s %s", toolchain.LLVMLockName, l.Development.Name, l.Development.Version)
}

func (s *Session) writeLock(root, name string, b []byte) error {
	return regfile.Replace(filepath.Join(root, "docker", "toolchain", name), b, 0o644)
}
