// Package disk measures packing and unpacking of bundles against tar and zstd, and
// downloads of models against curl and sha256sum.
//
// Both sides process the same bytes; for bundles, with the same level, window and number
// of threads.
// Our additional work (hashing each file, making it durable, recording the result) is
// part of the measurement; where the peer can do it too, a further row shows its time.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Input selects what to pack and unpack, and where.
type Input struct {
	// Pack is a packed bundle.
	Pack string
	// Target is the GPU target that Extraction unpacks.
	Target gfx.Target
	// Work is an empty directory on the disk under test.
	Work    string
	Rounds  int
	Threads int
	Log     io.Writer
}

// newPath returns a path that does not exist yet.
func (in *Input) newPath() (string, error) {
	dir, err := os.MkdirTemp(in.Work, "bundle-")
	if err != nil {
		return "", err
	}
	return dir, os.Remove(dir)
}

// shell runs a script of a peer.
func shell(ctx context.Context, script string, args ...string) error {
	argv := append([]string{"-eu", "-c", "set -o pipefail; " + script, "sh"}, args...)
	out, err := exec.CommandContext(ctx, "bash", argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// flush waits for the writes of earlier runs, so that they do not slow the next one.
func flush(ctx context.Context) error {
	if err := exec.CommandContext(ctx, "sync").Run(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// fresh returns a Variant that writes to a new path. It flushes the disk before and
// removes the path after the measurement.
func (in *Input) fresh(what string, run func(ctx context.Context, dir string) (seconds float64, err error)) page.Variant {
	return func(ctx context.Context) (float64, error) {
		dir, err := in.newPath()
		if err != nil {
			return 0, err
		}
		if err := flush(ctx); err != nil {
			return 0, err
		}
		v, err := run(ctx, dir)
		if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
			return 0, err
		}
		_, err = fmt.Fprintf(in.Log, "  %s: %.2f s\n", what, v)
		return v, err
	}
}

// timed returns a function that measures how long run takes.
func timed(run func(ctx context.Context, dir string) error) func(context.Context, string) (float64, error) {
	return func(ctx context.Context, dir string) (float64, error) {
		return page.Seconds(func(ctx context.Context) error { return run(ctx, dir) })(ctx)
	}
}

// unpacked unpacks the whole pack and returns its directory.
func (in *Input) unpacked(ctx context.Context) (dir string, m *bundle.Manifest, err error) {
	p, err := bundle.OpenFile(in.Pack)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if dir, err = in.newPath(); err != nil {
		return "", nil, err
	}
	if err = os.Mkdir(dir, 0o700); err != nil {
		return "", nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", nil, err
	}
	err = errors.Join(p.Extract(ctx, root, bundle.ExtractOptions{}), p.WriteManifest(root, false), root.Close())
	return dir, p.Manifest(), err
}

func size(file string) (float64, error) {
	info, err := os.Stat(file)
	if err != nil {
		return 0, err
	}
	return float64(info.Size()) / 1e6, nil
}

func base(file string) string { return filepath.Base(file) }
