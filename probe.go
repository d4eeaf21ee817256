package rocm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// flagsFor asks the program once for its flags; the answer is kept by its
// content. A bundle that this project built takes all that the plan writes, yet
// the folder may hold any llama-server.
func flagsFor(ctx context.Context, r *ready) (*supervise.Flags, error) {
	p := supervise.Probe{Argv: r.argv, Dir: r.dir, Digest: r.digest, CacheDir: os.Getenv(extract.CacheEnv)}
	if p.CacheDir == "" {
		if cache, err := os.UserCacheDir(); err == nil {
			p.CacheDir = filepath.Join(cache, "go-rocm")
		}
	}
	flags, err := supervise.ProbeFlags(ctx, p)
	if err != nil {
		return nil, fmt.Errorf("llama-server: %w", err)
	}
	return flags, nil
}

// Probed is what is known of a bundle whose llama-server was run.
type Probed struct {
	// Dir is where the bundle lies unpacked, Flags how many spellings of flags
	// its llama-server knows.
	Dir   string
	Flags int
}

// Probe unpacks what every machine needs of the bundle and runs its
// llama-server far enough to learn its flags: every library must be found for
// that. The answer is never taken from a cache.
func (b *Bundle) Probe(ctx context.Context, log *slog.Logger) (Probed, error) {
	r, err := b.unpack(ctx, []gfx.Target{}, nil, log, nil)
	if err != nil {
		return Probed{}, err
	}
	defer func() { _ = r.hold.Release() }()
	flags, err := supervise.ProbeFlags(ctx, supervise.Probe{Argv: r.argv, Dir: r.dir, Digest: r.digest})
	if err != nil {
		return Probed{}, fmt.Errorf("llama-server: %w", err)
	}
	return Probed{Dir: r.dir, Flags: len(flags.TakesValue)}, nil
}

// ErrNoManifest means that a bundle cannot be checked: nothing says what
// belongs into it.
var ErrNoManifest = errors.New("the bundle has no manifest")

// Verify reads all of the bundle and compares it with its manifest; a
// *bundle.VerifyError lists what differs. A folder that was given may hold what
// some of the targets need; an installed bundle must be whole. It wraps
// ErrNoManifest for a folder without a manifest.
func (b *Bundle) Verify(ctx context.Context) error {
	switch {
	case b.packed != nil:
		return b.packed.Verify(ctx)
	case b.Manifest == nil:
		return fmt.Errorf("%w: %s is taken as it is", ErrNoManifest, b.Dir)
	case b.Origin == OriginGiven:
		_, err := bundle.VerifyInstalled(ctx, b.Dir, b.Manifest)
		return err
	}
	return bundle.Verify(ctx, b.Dir, b.Manifest)
}

// Need returns the most that unpacking the bundle takes on a disk, in bytes:
// with the code of all its targets, and none for a folder.
func (b *Bundle) Need() int64 {
	if b.packed == nil {
		return 0
	}
	n, _ := b.packed.DiskUsage(nil, "")
	return n
}

// Unpacked reports whether the bundle lies in a folder already, so that the
// cache is not needed.
func (b *Bundle) Unpacked() bool { return b.Dir != "" }
