// Package locate finds the bundle that llama-server runs from, and makes its
// program ready to start.
//
// [Find] looks in four places, in this order: the path that the caller names,
// $GOROCM_BUNDLE, the directory of the Debian package, and the bundle embedded in
// the program. [Bundle.Unpack] unpacks a packed bundle into the cache.
package locate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	payload "forge.lthn.ai/core/go-rocm/embed"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
)

const (
	// EnvBundle is the environment variable that names the bundle to use: a
	// directory or a packed file.
	EnvBundle = "GOROCM_BUNDLE"
	// InstalledDir is where the Debian package installs the bundle.
	InstalledDir = "/usr/lib/go-rocm/llama"
)

const (
	serverName   = "llama-server"
	loaderName   = "ld-linux-x86-64.so.2"
	hipModule    = "libggml-hip.so"
	vulkanModule = "libggml-vulkan.so"
)

var (
	// ErrNoBundle reports that there is no llama-server to run.
	ErrNoBundle = errors.New("no llama-server bundle found")
	// ErrNoManifest reports that a bundle cannot be verified, because no manifest
	// lists its files.
	ErrNoManifest = errors.New("the bundle has no manifest")
)

// Origin is the kind of place where a bundle was found.
type Origin string

// The places that Find looks in, in this order.
const (
	OriginGiven     Origin = "given"     // the caller's path or $GOROCM_BUNDLE
	OriginInstalled Origin = "installed" // InstalledDir
	OriginEmbedded  Origin = "embedded"  // built into this program
)

// Bundle is a bundle that was found. A packed one is not unpacked yet.
type Bundle struct {
	Origin Origin
	// Path is the directory or the packed file; empty for the embedded bundle.
	Path string
	// Dir is the directory of an unpacked bundle; empty for a packed one.
	Dir string
	// Manifest is nil for a directory without a manifest, such as the user's own
	// build of llama.cpp.
	Manifest *bundle.Manifest

	program string // of FindServer, empty for a bundle
	packed  *bundle.Reader
	close   func() error
	// targets are the targets whose code is in Dir: all of the manifest's, or
	// fewer where the bundle was unpacked for some cards only.
	targets      []gfx.Target
	installed    *extract.Installed // of a directory with a manifest
	installedErr error
}

// Find returns the bundle at path, a directory or a packed file. With an empty
// path it returns the first of $GOROCM_BUNDLE, the installed bundle and the
// embedded one. The error wraps [ErrNoBundle] when there is none. The caller
// closes the bundle.
func Find(path string) (*Bundle, error) {
	if path == "" {
		path = os.Getenv(EnvBundle)
	}
	if path != "" {
		return openPath(path)
	}
	switch _, err := os.Stat(filepath.Join(InstalledDir, bundle.ManifestName)); {
	case err == nil:
		return openDir(OriginInstalled, InstalledDir)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the installed bundle: %w; reinstall the package", err)
	}
	r, err := openEmbedded()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; set %s to a bundle's directory or packed file, or install the go-rocm-llama-hip package", ErrNoBundle, err, EnvBundle)
	}
	return &Bundle{Origin: OriginEmbedded, Manifest: r.Manifest(), packed: r, close: func() error { return nil }}, nil
}

// openEmbedded opens the embedded bundle. Of several it opens the one for GPUs,
// which runs on the CPU too.
func openEmbedded() (*bundle.Reader, error) {
	variants, err := payload.Variants()
	if err != nil {
		return nil, err
	}
	if slices.Contains(variants, "hip") {
		return payload.OpenVariant("hip")
	}
	return payload.Open()
}

func openPath(path string) (*Bundle, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", path, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; %s must name a bundle's directory or packed file", ErrNoBundle, err, EnvBundle)
	}
	if info.IsDir() {
		return openDir(OriginGiven, abs)
	}
	f, err := bundle.OpenFile(abs)
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err) // which names the file
	}
	return &Bundle{Origin: OriginGiven, Path: abs, Manifest: f.Manifest(), packed: f.Reader, close: f.Close}, nil
}

func openDir(origin Origin, dir string) (*Bundle, error) {
	b := &Bundle{Origin: origin, Path: dir, Dir: dir, close: func() error { return nil }}
	var err error
	b.Manifest, err = bundle.ReadManifest(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, serverName)); err != nil {
			return nil, fmt.Errorf("%w: %s contains neither %s nor %s", ErrNoBundle, dir, bundle.ManifestName, serverName)
		}
		if b.targets, err = readTargets(dir); err != nil {
			return nil, err
		}
		return b, nil
	case err != nil:
		return nil, fmt.Errorf("bundle %s: %w", dir, err)
	}
	b.targets = b.Manifest.Targets
	// Unpack returns the error: a damaged directory can still be verified.
	if b.installed, b.installedErr = extract.OpenInstalled(dir); b.installedErr == nil {
		b.targets = b.installed.Targets
	}
	return b, nil
}

// readTargets reads the targets of a llama.cpp build without a manifest from its
// GPU module. A build without the module runs on the CPU.
func readTargets(dir string) ([]gfx.Target, error) {
	code, err := offload.ReadCodeObjects(filepath.Join(dir, hipModule))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", dir, err)
	}
	var out []gfx.Target
	for _, c := range code {
		if c.Kernels > 0 {
			out = append(out, c.Target)
		}
	}
	return out, nil
}

// Close closes the file of a packed bundle.
func (b *Bundle) Close() error { return b.close() }

// Targets returns the GPU targets that the bundle has code for. Of a directory
// that was unpacked for some cards only, it returns their targets.
func (b *Bundle) Targets() []gfx.Target {
	if b.packed == nil {
		return b.targets
	}
	return b.Manifest.Targets
}

// HasVulkan reports whether the bundle has the Vulkan module.
func (b *Bundle) HasVulkan() bool {
	if b.Manifest != nil {
		_, ok := b.Manifest.File(vulkanModule)
		return ok
	}
	_, err := os.Stat(filepath.Join(b.Dir, vulkanModule))
	return b.program == "" && err == nil // FindServer's program is asked
}

// Digest returns the digest of the manifest; empty without one.
func (b *Bundle) Digest() string {
	switch {
	case b.packed != nil:
		return b.packed.Digest() // from the pack's index
	case b.Manifest != nil:
		return b.Manifest.Digest()
	}
	return ""
}

// HIPBLASLtTargets returns the targets that the bundle has hipBLASLt kernels for.
func (b *Bundle) HIPBLASLtTargets() []gfx.Target {
	if b.Manifest == nil {
		return nil
	}
	var out []gfx.Target
	for _, f := range b.Manifest.Files {
		if f.Target != "" && strings.HasPrefix(f.Path, "hipblaslt/") && !slices.Contains(out, f.Target) {
			out = append(out, f.Target)
		}
	}
	return out
}

// Verify reads the whole bundle and compares it with its manifest. A
// *bundle.VerifyError lists the differences. A directory that the caller named
// may have the files of some targets only; an installed bundle must be complete.
// Verify returns [ErrNoManifest] for a directory without a manifest.
func (b *Bundle) Verify(ctx context.Context) error {
	switch {
	case b.packed != nil:
		return b.packed.Verify(ctx)
	case b.Manifest == nil:
		return fmt.Errorf("%w: %s is used unchecked", ErrNoManifest, b.Path)
	case b.Origin == OriginGiven:
		_, err := bundle.VerifyInstalled(ctx, b.Dir, b.Manifest)
		return err
	}
	return bundle.Verify(ctx, b.Dir, b.Manifest)
}

// UnpackedSize returns the most disk space, in bytes, that unpacking the bundle
// takes: the size with the code of all targets. It returns 0 for a directory.
func (b *Bundle) UnpackedSize() int64 {
	if b.packed == nil {
		return 0
	}
	n, _ := b.packed.DiskUsage(nil, "")
	return n
}

// Unpacked reports whether the bundle is a directory, which needs no cache.
func (b *Bundle) Unpacked() bool { return b.Dir != "" }
