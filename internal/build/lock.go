package build

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// Lock makes the toolchain images and records what is in them; where a
// registry answers, also the digest of AMD's image.
func Lock() error {
	return within(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		spec := s.Recipe.Toolchain
		spec.Kind, spec.BaseImage, spec.Locked = "debian", "", false
		for _, set := range []toolchain.Set{toolchain.CPU, toolchain.HIP} {
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
			if err := s.say("lock: %s: %d packages, %d changes", toolchain.LockName(set), len(t.Packages), len(t.Deviations)); err != nil {
				return err
			}
		}
		digest, err := s.Recipe.Engine.Resolve(ctx, toolchain.AMDReference)
		if err != nil {
			return s.say("lock: AMD's image stays as it is locked: %v", err)
		}
		var b bytes.Buffer
		if err := toolchain.FormatAMDLock(&b, digest); err != nil {
			return err
		}
		return s.writeLock(root, "amd.lock", b.Bytes())
	})
}

func (s *Session) writeLock(root, name string, b []byte) error {
	return os.WriteFile(filepath.Join(root, "docker", "toolchain", name), b, 0o644) //nolint:gosec // a file of the source tree
}
