package deb

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// installedBundle is where the command looks for an installed bundle.
const installedBundle = "/usr/lib/go-rocm/llama"

// unpackedBundle is a bundle's directory that matches its manifest.
type unpackedBundle struct {
	dir        string
	manifest   *bundle.Manifest
	components []licences.Component
}

// readBundle reads and verifies the bundle in dir.
func readBundle(ctx context.Context, dir string) (*unpackedBundle, error) {
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: pass the directory of an unpacked bundle", ErrBundle, err)
	}
	if err := bundle.Verify(ctx, dir, m); err != nil {
		return nil, fmt.Errorf("%w: %s does not match its manifest: %w: build it again", ErrBundle, dir, err)
	}
	components, err := licences.FromBundle(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	return &unpackedBundle{dir: dir, manifest: m, components: components}, nil
}

// newBundlePackage returns the package with a bundle.
func newBundlePackage(o Options, v Version, b *unpackedBundle) (*pkg, error) {
	llama, err := llamaVersion(b.manifest.Version)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBundle, err)
	}
	p := &pkg{
		name:       BundlePackageName(b.manifest),
		synopsis:   "llama.cpp bundle for go-rocm, variant " + variantName(b.manifest),
		details:    []string{b.description(), "Manifest digest: sha256:" + b.manifest.Digest()},
		provides:   []string{bundleProvides + " (= " + llama + ")"},
		conflicts:  []string{bundleProvides},
		replaces:   []string{bundleProvides},
		entries:    b.entries(),
		recompress: o.Recompress,
		overrides:  bundleOverrides(b),
		recommends: b.hostPackages(),
	}
	t, err := bundleTerms(b)
	if err != nil {
		return nil, err
	}
	changes, err := bundleChangelog(p.name, o, v, b)
	if err != nil {
		return nil, err
	}
	return p, p.finish(o, t, changes, map[string]string{"postinst": "go-rocm-llama.postinst"})
}

// BundlePackageName returns the name of a bundle's package. It contains the
// variant and, unless the bundle is hermetic, the flavour.
func BundlePackageName(m *bundle.Manifest) string {
	return bundleProvides + "-" + variantName(m)
}

func variantName(m *bundle.Manifest) string {
	if m.Flavour == bundle.FlavourHermetic {
		return m.Variant
	}
	return m.Variant + "-" + m.Flavour
}

func (b *unpackedBundle) description() string {
	if h := b.manifest.Host; h != nil {
		major, _, _ := strings.Cut(h.ROCm, ".")
		return fmt.Sprintf("The bundle contains llama.cpp %s with the C library. It uses the machine's ROCm %s.x, from Debian's or AMD's packages; without ROCm, models run on the CPU. It runs only on x86-64. GPU targets: %s.",
			b.manifest.Version, major, b.targets())
	}
	host := "It uses only the machine's kernel with the amdgpu driver."
	if b.hasVulkan() {
		host = "It uses the machine's kernel, with the amdgpu driver for HIP, and for Vulkan the machine's driver."
		if len(b.manifest.Targets) == 0 {
			host = "It uses the machine's kernel and its Vulkan driver."
		}
	}
	return fmt.Sprintf("The bundle contains llama.cpp %s with all libraries that it needs, including the C library. %s It runs only on x86-64. GPU targets: %s.",
		b.manifest.Version, host, b.targets())
}

// hasVulkan reports whether the bundle has the Vulkan module.
func (b *unpackedBundle) hasVulkan() bool {
	return slices.ContainsFunc(b.manifest.Files, func(f bundle.File) bool { return f.Path == "libggml-vulkan.so" })
}

// targets lists the GPU targets for people.
func (b *unpackedBundle) targets() string {
	var names []string
	for _, t := range b.manifest.Targets {
		names = append(names, fmt.Sprint(t))
	}
	switch {
	case len(names) == 0 && b.hasVulkan():
		return "any with a Vulkan driver"
	case len(names) == 0:
		return "none (CPU only)"
	}
	return strings.Join(names, ", ")
}

// entries returns the bundle's files with their installation paths.
func (b *unpackedBundle) entries() []entry {
	out := []entry{{
		path: path.Join(installedBundle, bundle.ManifestName),
		from: filepath.Join(b.dir, bundle.ManifestName),
		mode: 0o644,
	}}
	for _, f := range b.manifest.Files {
		out = append(out, entry{
			path: path.Join(installedBundle, f.Path),
			from: filepath.Join(b.dir, filepath.FromSlash(f.Path)),
			mode: os.FileMode(f.Mode) & os.ModePerm,
		})
	}
	return out
}

// hostPackages returns the packages of Debian or AMD with the libraries that the
// bundle uses from the machine. A bundle with HIP code recommends no Vulkan driver: it
// needs none.
func (b *unpackedBundle) hostPackages() []string {
	var out []string
	if b.hasVulkan() && len(b.manifest.Targets) == 0 {
		out = append(out, "mesa-vulkan-drivers | vulkan-icd")
	}
	if b.manifest.Host == nil {
		return out
	}
	for _, l := range b.manifest.Host.Libraries {
		alternatives := slices.DeleteFunc([]string{l.Debian, l.AMD}, func(name string) bool { return name == "" })
		if len(alternatives) > 0 {
			out = append(out, strings.Join(alternatives, " | "))
		}
	}
	return out
}
