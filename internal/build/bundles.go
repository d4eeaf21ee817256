package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	payload "forge.lthn.ai/core/go-rocm/embed"

	"forge.lthn.ai/core/go-rocm/docker/llvm"
	"forge.lthn.ai/core/go-rocm/docker/recipe"
)

// payloadDir is the directory of the embedded bundle, relative to the root.
const payloadDir = "embed/payload"

// payloadParts matches the files there that package embed writes and reads. Others, such
// as a person's notes, are neither published nor removed.
const payloadParts = "llama-*.tar.zst.[0-9][0-9][0-9]"

// Bundles builds and packs the bundles of all variants of the settings.
func (s *Session) Bundles(ctx context.Context) ([]*recipe.Packed, error) {
	vs, err := s.Variants()
	if err != nil {
		return nil, err
	}
	var packed []*recipe.Packed
	for _, v := range vs {
		start := time.Now()
		p, err := s.Recipe.Pack(ctx, v)
		if err != nil {
			return nil, err
		}
		how := "built in " + time.Since(start).Round(time.Second).String()
		if p.Bundle.Cached && p.Pack.Cached {
			how = "unchanged"
		}
		if err := s.printf("bundle %s: %s, %.1f MB packed, %.1f MB unpacked", p.Manifest.Name, how, float64(p.Size)/1e6, float64(p.Manifest.Size())/1e6); err != nil {
			return nil, err
		}
		packed = append(packed, p)
	}
	return packed, nil
}

// checkSizes compares bundles with their recorded sizes and kernels. Bundles that
// were built with other options or in another image are not checked.
func (s *Session) checkSizes(packed []*recipe.Packed) error {
	if s.hasOwnSizes() {
		return nil
	}
	recorded, err := recipe.RecordedSizes()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range packed {
		now, err := p.Sizes()
		if err != nil {
			return err
		}
		errs = append(errs, recipe.CheckTensile(recorded, p.Label, now))
		if llvm.IsWhole(p.Manifest) {
			errs = append(errs, s.printf("bundle %s: its size is not checked, because libLLVM is not trimmed", p.Manifest.Name))
			continue
		}
		errs = append(errs, recipe.CheckSize(recorded, p.Label, now))
	}
	return errors.Join(errs...)
}

// hasOwnSizes reports whether bundles are built with other options or in another image
// than those that sizes are recorded of.
func (s *Session) hasOwnSizes() bool {
	return len(s.Settings.CMake) > 0 || s.Recipe.Toolchain.HasBaseImage()
}

// checkFileSize compares the file of a deliverable that contains a bundle with its limit, by check.
func (s *Session) checkFileSize(p *recipe.Packed, check func(label string, targets []string, size int64) error, pattern, dir string) error {
	if s.hasOwnSizes() || llvm.IsWhole(p.Manifest) {
		return nil
	}
	file, err := findOne(dir, pattern)
	if err != nil {
		return err
	}
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	var targets []string
	for _, t := range p.Manifest.Targets {
		targets = append(targets, t.String())
	}
	return check(p.Label, targets, info.Size())
}

// findBundle returns the bundle of a variant, in the first flavour of the settings.
func findBundle(packed []*recipe.Packed, variant string) (*recipe.Packed, error) {
	i := slices.IndexFunc(packed, func(p *recipe.Packed) bool { return p.Variant == variant })
	if i < 0 {
		return nil, fmt.Errorf("the %s bundle is not built: add it to GOROCM_VARIANTS", variant)
	}
	return packed[i], nil
}

// EmbedBundle writes a packed bundle to the directory from which it is embedded, and
// removes any other. It does not touch a bundle that is already there, so that Go's
// build cache keeps its result.
func (s *Session) EmbedBundle(root string, p *recipe.Packed) error {
	dir := filepath.Join(root, payloadDir)
	old, err := filepath.Glob(filepath.Join(dir, payloadParts))
	if err != nil {
		return err
	}
	if same, err := s.isEmbedded(old, p); err != nil || same {
		return err
	}
	for _, name := range old {
		if !strings.HasPrefix(filepath.Base(name), "llama-"+p.Variant+".") {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
	}
	f, err := os.Open(p.File)
	if err != nil {
		return err
	}
	parts, err := payload.WriteParts(dir, p.Variant, f, 0)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("embed %s: %w", filepath.Base(p.File), err)
	}
	return s.printf("embed: %s as %d parts of at most %d MiB", p.Manifest.Name, len(parts), payload.MaxPartSize>>20)
}

// isEmbedded reports whether the embedded parts are those of p.
func (s *Session) isEmbedded(parts []string, p *recipe.Packed) (bool, error) {
	slices.Sort(parts)
	want, err := os.ReadFile(p.File)
	if err != nil {
		return false, err
	}
	for _, name := range parts {
		if !strings.HasPrefix(filepath.Base(name), "llama-"+p.Variant+".") {
			return false, nil
		}
		have, err := os.ReadFile(name)
		if err != nil {
			return false, err
		}
		if len(have) > len(want) || string(have) != string(want[:len(have)]) {
			return false, nil
		}
		want = want[len(have):]
	}
	return len(want) == 0 && len(parts) > 0, nil
}
