package rocm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	// EnvBundle names the bundle to use: a folder, or a packed file.
	EnvBundle = "GOROCM_BUNDLE"
	// InstalledDir is where the Debian package puts the bundle.
	InstalledDir = "/usr/lib/go-rocm/llama"
)

// ErrNoBundle means that there is no llama-server to run.
var ErrNoBundle = errors.New("no llama-server bundle found")

// Origin says where a bundle comes from.
type Origin string

// The places where a bundle is looked for, in this order.
const (
	OriginGiven     Origin = "given"     // Settings.Bundle or GOROCM_BUNDLE
	OriginInstalled Origin = "installed" // InstalledDir
	OriginEmbedded  Origin = "embedded"  // built into this program
)

// Bundle is a bundle found, not yet unpacked where it is packed.
type Bundle struct {
	Origin Origin
	// Path is the folder or the packed file; empty for the embedded one.
	Path string
	// Dir is set for a bundle that lies unpacked.
	Dir string
	// Manifest is nil for a folder that has none, such as a llama.cpp build of
	// the user's own.
	Manifest *bundle.Manifest

	packed *bundle.Reader
	close  func() error
	// targets are those whose code is in a folder: all of the manifest's, or
	// some where it was unpacked for those.
	targets      []gfx.Target
	installed    *extract.Installed // of a folder with a manifest
	installedErr error
}

// FindBundle looks for a bundle: given (a folder or a packed file) if it is not
// empty, else GOROCM_BUNDLE, the installed one, the embedded one. The caller
// closes it.
func FindBundle(given string) (*Bundle, error) {
	if given == "" {
		given = os.Getenv(EnvBundle)
	}
	if given != "" {
		return givenBundle(given)
	}
	switch _, err := os.Stat(filepath.Join(InstalledDir, bundle.ManifestName)); {
	case err == nil:
		return folder(OriginInstalled, InstalledDir)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the installed bundle: %w; install the package again", err)
	}
	r, err := openEmbedded()
	if err != nil {
		return nil, fmt.Errorf("%w: %w; set %s to a bundle's folder or file, or install the go-rocm-llama-hip package", ErrNoBundle, err, EnvBundle)
	}
	return &Bundle{Origin: OriginEmbedded, Manifest: r.Manifest(), packed: r, close: func() error { return nil }}, nil
}

// openEmbedded opens the bundle that is built in; of several the one for GPUs,
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

func givenBundle(path string) (*Bundle, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", path, err)
	}
	info, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; %s must name a bundle's folder or packed file", ErrNoBundle, err, EnvBundle)
	}
	if info.IsDir() {
		return folder(OriginGiven, abs)
	}
	f, err := bundle.OpenFile(abs)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", abs, err)
	}
	return &Bundle{Origin: OriginGiven, Path: abs, Manifest: f.Manifest(), packed: f.Reader, close: f.Close}, nil
}

func folder(origin Origin, dir string) (*Bundle, error) {
	b := &Bundle{Origin: origin, Path: dir, Dir: dir, close: func() error { return nil }}
	var err error
	b.Manifest, err = bundle.ReadManifest(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Stat(filepath.Join(dir, serverName)); err != nil {
			return nil, fmt.Errorf("%w: %s holds neither %s nor %s", ErrNoBundle, dir, bundle.ManifestName, serverName)
		}
		b.targets, err = codeIn(dir)
		return b, err
	case err != nil:
		return nil, fmt.Errorf("bundle %s: %w", dir, err)
	}
	b.targets = b.Manifest.Targets
	// What is wrong is for whoever starts it; a damaged folder can be verified.
	if b.installed, b.installedErr = extract.OpenInstalled(dir); b.installedErr == nil {
		b.targets = b.installed.Targets
	}
	return b, nil
}

// Close releases a packed bundle's file.
func (b *Bundle) Close() error { return b.close() }

// Targets are the GPU targets that the bundle has code for; of a folder that was
// unpacked for some of them, those.
func (b *Bundle) Targets() []gfx.Target {
	if b.packed == nil {
		return b.targets
	}
	return b.Manifest.Targets
}

// hipBLASLt lists the targets that the bundle has hipBLASLt kernels for.
func (b *Bundle) hipBLASLt() []gfx.Target {
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

// codeIn reads the targets of a llama.cpp build without a manifest from its GPU
// module itself. A build without one runs on the CPU.
func codeIn(dir string) ([]gfx.Target, error) {
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

const (
	serverName = "llama-server"
	loaderName = "ld-linux-x86-64.so.2"
	hipModule  = "libggml-hip.so"
)

// ready is a bundle that can be started.
type ready struct {
	dir    string
	argv   []string
	digest string // of the content, empty where there is no manifest
	// targets are those whose code lies there.
	targets []gfx.Target
	hold    *extract.Lease
}

// inherit is what the program keeps open, so that nobody removes the bundle
// while it runs.
func (r *ready) inherit() []*os.File {
	if f := r.hold.File(); f != nil {
		return []*os.File{f}
	}
	return nil
}

// unpack makes the bundle startable. The caller releases its hold. targets bounds
// what is unpacked of the files that only some GPUs need; nil takes all. folders
// of the host are searched for libraries after the bundle's own.
func (b *Bundle) unpack(ctx context.Context, targets []gfx.Target, folders []string, log *slog.Logger, progress func(done, total int64)) (*ready, error) {
	if b.Dir != "" && b.Manifest == nil {
		return &ready{dir: b.Dir, argv: plainCommand(b.Dir), targets: b.targets}, nil
	}
	in, err := b.installed, b.installedErr
	if b.packed != nil {
		in, err = extract.Extract(ctx, b.packed, extract.Options{
			Targets: targets, Lease: true, Log: log, Progress: progress,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	r := &ready{dir: in.Dir, argv: in.Command(folders...), targets: in.Targets, hold: in.Lease}
	if b.packed != nil {
		r.digest = b.packed.Digest() // known from the pack's index
	} else {
		r.digest = in.Manifest.Digest()
	}
	return r, nil
}

// plainCommand starts the llama-server of a folder without a manifest, through
// its own loader where one lies beside it.
func plainCommand(dir string) []string {
	program := filepath.Join(dir, serverName)
	loader := filepath.Join(dir, loaderName)
	if _, err := os.Stat(loader); err == nil {
		return []string{loader, "--library-path", dir, program}
	}
	return []string{program}
}
