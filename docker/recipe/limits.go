package recipe

import (
	"fmt"
	"maps"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// growth is how much larger than its record a bundle may be: 3 %.
const growth = 0.03

// Limits are the fixed limits of a bundle in bytes, whatever is recorded; 0: none. Those for targets
// apply to bundles for gfx1100 and gfx1101.
type Limits struct {
	Packed int64
	// Package and Image limit the files that contain the bundle: its Debian package, and the container
	// image, which has the command, too.
	Package, Image int64
	// OneTarget and AllTargets limit the space on disk.
	OneTarget, AllTargets int64
}

// limitsOf returns the limits of a bundle, by its label. Those of the core alone are here, those of a
// backend are part of it. The system flavour has none.
func limitsOf(label string) Limits {
	if label == "cpu" {
		return Limits{Packed: 12_000_000, Package: 12_000_000, Image: 20_000_000}
	}
	b, _ := backendByName(label)
	return b.Limits
}

// SizeError reports that a bundle is larger than its record allows, or than a fixed
// limit.
type SizeError struct {
	Variant, What string
	Limit, Size   int64 // bytes
	Fixed         bool  // Limit is fixed, and not a recorded size
}

// Error names both sizes, and the way to accept the new one where there is one.
func (e *SizeError) Error() string {
	size, limit := float64(e.Size)/1e6, float64(e.Limit)/1e6
	if e.Fixed {
		return fmt.Sprintf("the %s bundle is %.1f MB %s, and %.1f MB is the limit, which `mage lock` does not change: make it smaller", e.Variant, size, e.What, limit)
	}
	return fmt.Sprintf("the %s bundle is %.1f MB %s, more than 3 %% over the recorded %.1f MB: find out why, or accept it with `mage lock`", e.Variant, size, e.What, limit)
}

// CheckSizeLimits compares a bundle with the fixed limits. A bundle with code for
// other targets than gfx1100 and gfx1101 has none.
func CheckSizeLimits(variant string, now Sizes) error {
	type limit struct {
		what      string
		most, now int64
	}
	if hasOtherTargets(now.Targets) {
		return nil
	}
	fixed := limitsOf(variant)
	all := []limit{{"packed", fixed.Packed, now.Packed}, {onDisk(allTargets), fixed.AllTargets, now.Disk[allTargets]}}
	for _, t := range now.Targets {
		all = append(all, limit{onDisk(t), fixed.OneTarget, now.Disk[t]})
	}
	for _, l := range all {
		if l.most > 0 && l.now > l.most {
			return &SizeError{Variant: variant, What: l.what, Limit: l.most, Size: l.now, Fixed: true}
		}
	}
	return nil
}

// hasOtherTargets reports whether there are targets that the fixed limits are not for.
func hasOtherTargets(targets []string) bool {
	return slices.ContainsFunc(targets, func(t string) bool { return t != gfx.GFX1100.String() && t != gfx.GFX1101.String() })
}

// CheckPackageSize compares the Debian package of a bundle for targets with the fixed limit.
func CheckPackageSize(variant string, targets []string, size int64) error {
	return checkFileSize(variant, targets, "as a Debian package", limitsOf(variant).Package, size)
}

// CheckImageSize compares the container image with a bundle for targets with the fixed limit.
func CheckImageSize(variant string, targets []string, size int64) error {
	return checkFileSize(variant, targets, "as a container image", limitsOf(variant).Image, size)
}

func checkFileSize(variant string, targets []string, what string, limit, size int64) error {
	if limit == 0 || hasOtherTargets(targets) || size <= limit {
		return nil
	}
	return &SizeError{Variant: variant, What: what, Limit: limit, Size: size, Fixed: true}
}

// CheckSize compares a bundle with the fixed limits and with the record. Bundles
// with other targets than the recorded ones, and of a variant without a record,
// are compared with the limits alone.
func CheckSize(recorded map[string]Sizes, variant string, now Sizes) error {
	if err := CheckSizeLimits(variant, now); err != nil {
		return err
	}
	old, ok := recorded[variant]
	if !ok || !slices.Equal(old.Targets, now.Targets) {
		return nil
	}
	outgrown := func(what string, old, now int64) error {
		if float64(now) > float64(old)*(1+growth) {
			return &SizeError{Variant: variant, What: what, Limit: old, Size: now}
		}
		return nil
	}
	if err := outgrown("packed", old.Packed, now.Packed); err != nil {
		return err
	}
	if err := outgrown("unpacked", old.Unpacked, now.Unpacked); err != nil {
		return err
	}
	for _, t := range slices.Sorted(maps.Keys(now.Disk)) {
		if err := outgrown(onDisk(t), old.Disk[t], now.Disk[t]); err != nil {
			return err
		}
	}
	return nil
}

func onDisk(target string) string {
	if target == allTargets {
		return "on disk with all its code"
	}
	return "on disk for " + target
}
