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

// payloadDir is where packed bundles lie to be compiled in, from the root.
const payloadDir = "embed/payload"

// Bundles gives the packed bundles of all variants that are asked for.
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
		if err := s.say("bundle %s: %s, %.1f MB packed, %.1f MB unpacked", p.Manifest.Name, how, float64(p.Size)/1e6, float64(p.Manifest.Size())/1e6); err != nil {
			return nil, err
		}
		packed = append(packed, p)
	}
	return packed, nil
}

// checkSizes holds bundles built by the project's own options against their
// recorded sizes and kernels.
func (s *Session) checkSizes(packed []*recipe.Packed) error {
	if len(s.Settings.CMake) > 0 || s.Recipe.Toolchain.Image() {
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
			errs = append(errs, s.say("bundle %s: its size is not held against the record, since libLLVM is whole", p.Manifest.Name))
			continue
		}
		errs = append(errs, recipe.CheckSize(recorded, p.Label, now))
	}
	return errors.Join(errs...)
}

// bundleOf picks a variant's bundle, in the first flavour of the setting.
func bundleOf(packed []*recipe.Packed, variant string) (*recipe.Packed, error) {
	i := slices.IndexFunc(packed, func(p *recipe.Packed) bool { return p.Variant == variant })
	if i < 0 {
		return nil, fmt.Errorf("the %s bundle is not among those built: add it to GOROCM_VARIANTS", variant)
	}
	return packed[i], nil
}

// EmbedBundle puts a packed bundle where the compiler takes it from, and
// removes any other. What is there already is left alone, so that Go's build
// cache keeps its result.
func (s *Session) EmbedBundle(root string, p *recipe.Packed) error {
	dir := filepath.Join(root, payloadDir)
	old, err := filepath.Glob(filepath.Join(dir, "llama-*"))
	if err != nil {
		return err
	}
	if same, err := s.embedded(old, p); err != nil || same {
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
	return s.say("embed: %s as %d parts of at most %d MiB", p.Manifest.Name, len(parts), payload.MaxPartSize>>20)
}

// embedded reports whether the parts in place are those of p.
func (s *Session) embedded(parts []string, p *recipe.Packed) (bool, error) {
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
