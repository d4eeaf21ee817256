package locate

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/internal/userdirs"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Program is a llama-server that is ready to start. Its directory stays in the
// cache until Close.
type Program struct {
	// Dir is the directory that the program runs in.
	Dir string
	// Argv is the command, without arguments for llama-server.
	Argv []string
	// Targets are the GPU targets whose code is in Dir.
	Targets []gfx.Target

	digest string // of the content, empty without a manifest
	lease  *extract.Lease
}

// UnpackOptions are the options of [Bundle.Unpack]. The zero value unpacks the
// code of all targets.
type UnpackOptions struct {
	// Targets limits the files for single GPU targets to these targets. An empty,
	// non-nil slice unpacks none of them; nil unpacks all.
	Targets []gfx.Target
	// LibraryDirs are directories of the host that are searched for libraries
	// after the bundle's own.
	LibraryDirs []string
	// Log logs repairs of the cache; nil: nothing is logged.
	Log *slog.Logger
	// Progress is called with the number of bytes unpacked; it may be nil.
	Progress func(done, total int64)
}

// Unpack unpacks what o selects, where the cache does not have it yet, and
// returns the program. The caller closes the program.
func (b *Bundle) Unpack(ctx context.Context, o UnpackOptions) (*Program, error) {
	if b.program != "" {
		return &Program{Dir: b.Dir, Argv: []string{b.program}, Targets: o.Targets}, nil
	}
	if b.Dir != "" && b.Manifest == nil {
		return &Program{Dir: b.Dir, Argv: commandWithoutManifest(b.Dir), Targets: b.targets}, nil
	}
	in, err := b.installed, b.installedErr
	if b.packed != nil {
		in, err = extract.Extract(ctx, b.packed, extract.Options{Targets: o.Targets, Lease: true, Log: o.Log, Progress: o.Progress})
	}
	if err != nil {
		return nil, fmt.Errorf("bundle: %w", err)
	}
	p := &Program{Dir: in.Dir, Argv: in.Command(o.LibraryDirs...), Targets: in.Targets, lease: in.Lease}
	if b.packed != nil {
		p.digest = b.packed.Digest() // from the pack's index
	} else {
		p.digest = in.Manifest.Digest()
	}
	return p, nil
}

// commandWithoutManifest returns the command for a directory without a manifest.
// It uses the loader in the directory where there is one.
func commandWithoutManifest(dir string) []string {
	program := filepath.Join(dir, serverName)
	loader := filepath.Join(dir, loaderName)
	if _, err := os.Stat(loader); err == nil {
		return []string{loader, "--library-path", dir, program}
	}
	return []string{program}
}

// Close ends the program's lease on its directory, which the cache may then remove.
func (p *Program) Close() error { return p.lease.Release() }

// LeaseFiles returns the files that a child process inherits, so that its lease
// on the directory lasts as long as the process.
func (p *Program) LeaseFiles() []*os.File {
	if f := p.lease.File(); f != nil {
		return []*os.File{f}
	}
	return nil
}

// Flags returns the flags that the program accepts. It runs the program once and
// caches the result by the bundle's digest. A bundle of this project accepts every
// flag that package plan writes; any other llama-server may not.
func (p *Program) Flags(ctx context.Context) (*supervise.Flags, error) {
	cache, err := userdirs.Writable()
	if err != nil {
		cache = "" // the result is not cached
	}
	return p.probe(ctx, cache)
}

func (p *Program) probe(ctx context.Context, cacheDir string) (*supervise.Flags, error) {
	flags, err := supervise.ProbeFlags(ctx, supervise.Probe{Argv: p.Argv, Dir: p.Dir, Digest: p.digest, CacheDir: cacheDir})
	if err != nil {
		return nil, fmt.Errorf("llama-server: %w", err)
	}
	return flags, nil
}

// ProbeResult is the result of [Bundle.Probe].
type ProbeResult struct {
	// Dir is the directory of the unpacked bundle.
	Dir string
	// Flags counts the spellings of flags that llama-server accepts.
	Flags int
}

// Probe unpacks the files that every machine needs and runs llama-server until it
// has printed its flags, which loads all its libraries. It uses no cached result.
func (b *Bundle) Probe(ctx context.Context, log *slog.Logger) (ProbeResult, error) {
	p, err := b.Unpack(ctx, UnpackOptions{Targets: []gfx.Target{}, Log: log})
	if err != nil {
		return ProbeResult{}, err
	}
	defer func() { _ = p.Close() }()
	flags, err := p.probe(ctx, "")
	if err != nil {
		return ProbeResult{}, err
	}
	return ProbeResult{Dir: p.Dir, Flags: len(flags.TakesValue)}, nil
}
