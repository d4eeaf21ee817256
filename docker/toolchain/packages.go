package toolchain

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/deb822"
)

// Package is an installed Debian package. SHA256 is the digest of the .deb in the signed
// archive index, empty if no index has it.
type Package struct {
	Name, Version, Arch, SHA256 string
}

// readPackages reads the list of packages that was recorded with the image.
func readPackages(ctx context.Context, eng engine.Engine, image string) (pkgs []Package, err error) {
	files, err := eng.Files(ctx, image)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, files.Close()) }()
	err = files.Walk(ctx, infoPath, func(_ *tar.Header, r io.Reader) error {
		pkgs, err = ParsePackages(r)
		return err
	})
	if err == nil && len(pkgs) == 0 {
		err = fmt.Errorf("image %s lists no packages in %s", image, infoPath)
	}
	return pkgs, err
}

// ParsePackages parses the output of apt-cache show and returns the packages sorted by name,
// without duplicates.
func ParsePackages(r io.Reader) ([]Package, error) {
	paragraphs, err := deb822.Parse(r)
	if err != nil {
		return nil, fmt.Errorf("read the list of packages: %w", err)
	}
	byName := map[string]Package{}
	for _, d := range paragraphs {
		p := Package{Name: d.Get("Package"), Version: d.Get("Version"), Arch: d.Get("Architecture"), SHA256: d.Get("SHA256")}
		if p.Name == "" || p.Version == "" || p.Arch == "" {
			return nil, fmt.Errorf("a package lacks Package, Version or Architecture: %q", d.String())
		}
		key := p.Name + ":" + p.Arch
		if old, ok := byName[key]; !ok || old.SHA256 == "" {
			byName[key] = p
		}
	}
	pkgs := make([]Package, 0, len(byName))
	for _, p := range byName {
		pkgs = append(pkgs, p)
	}
	slices.SortFunc(pkgs, func(a, b Package) int {
		return strings.Compare(a.Name+":"+a.Arch, b.Name+":"+b.Arch)
	})
	return pkgs, nil
}

// Compare returns a sentence for each difference between found and locked.
func Compare(locked, found []Package) []string {
	byName := map[string]Package{}
	for _, p := range locked {
		byName[p.Name+":"+p.Arch] = p
	}
	var diff []string
	for _, p := range found {
		key := p.Name + ":" + p.Arch
		old, ok := byName[key]
		delete(byName, key)
		switch {
		case !ok:
			diff = append(diff, fmt.Sprintf("%s %s is not in the lock", p.Name, p.Version))
		case old.Version != p.Version:
			diff = append(diff, fmt.Sprintf("%s is %s, locked is %s", p.Name, p.Version, old.Version))
		case old.SHA256 != p.SHA256:
			diff = append(diff, fmt.Sprintf("%s %s has sha256 %s, locked is %s", p.Name, p.Version, p.SHA256, old.SHA256))
		}
	}
	for _, p := range byName {
		diff = append(diff, fmt.Sprintf("%s %s is locked but not installed", p.Name, p.Version))
	}
	slices.Sort(diff)
	return diff
}

// Merge returns the packages of several toolchains, each once, and their deviations. Where two have
// another version of a package, it returns that of the first, and the other is a deviation.
func Merge(all []*Toolchain) (packages []Package, deviations []string) {
	from := map[string]*Toolchain{}
	byName := map[string]Package{}
	for _, t := range all {
		for _, p := range t.Packages {
			key := p.Name + ":" + p.Arch
			first, ok := byName[key]
			if !ok {
				byName[key], from[key] = p, t
				packages = append(packages, p)
			} else if first.Version != p.Version {
				deviations = append(deviations, fmt.Sprintf("%s is %s in the %s image and %s in the %s image", p.Name, p.Version, t.Set, first.Version, from[key].Set))
			}
		}
		deviations = append(deviations, t.Deviations...)
	}
	if len(all) == 1 {
		return packages, deviations // in the order of the image
	}
	slices.SortFunc(packages, func(a, b Package) int { return strings.Compare(a.Name+":"+a.Arch, b.Name+":"+b.Arch) })
	slices.Sort(deviations)
	return packages, slices.Compact(deviations)
}
