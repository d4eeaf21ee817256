// Package disk measures packing and unpacking of bundles beside what everybody
// has for it: tar and zstd.
//
// Both sides do the same work on the same bytes with the same level, the same
// window and the same number of threads. What ours does beyond (hashing each
// file, making it durable, sealing the result) is part of what is measured;
// where the peer can do it too, a row says what it then takes.
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

// Input says what to pack and unpack, and where.
type Input struct {
	// Pack is a packed bundle.
	Pack string
	// Target is the one that Extraction unpacks.
	Target gfx.Target
	// Work is an empty folder on the disk that is measured.
	Work    string
	Rounds  int
	Threads int
	Log     io.Writer
}

// folder gives the path of a folder that is not there yet.
func (in *Input) folder() (string, error) {
	dir, err := os.MkdirTemp(in.Work, "bundle-")
	if err != nil {
		return "", err
	}
	return dir, os.Remove(dir)
}

// shell runs a script of the peers.
func shell(ctx context.Context, script string, args ...string) error {
	argv := append([]string{"-eu", "-c", "set -o pipefail; " + script, "sh"}, args...)
	out, err := exec.CommandContext(ctx, "bash", argv...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

// settle lets the disk finish what earlier runs have left to it, so that nobody
// pays for another's writing.
func settle(ctx context.Context) error {
	if err := exec.CommandContext(ctx, "sync").Run(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// fresh makes a Variant of a timed run that writes a new folder: the disk is quiet
// before it, and the folder is removed after it, both untimed.
func (in *Input) fresh(what string, run func(ctx context.Context, dir string) (seconds float64, err error)) page.Variant {
	return func(ctx context.Context) (float64, error) {
		dir, err := in.folder()
		if err != nil {
			return 0, err
		}
		if err := settle(ctx); err != nil {
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

// timed makes a run that is timed from outside.
func timed(run func(ctx context.Context, dir string) error) func(context.Context, string) (float64, error) {
	return func(ctx context.Context, dir string) (float64, error) {
		return page.Seconds(func(ctx context.Context) error { return run(ctx, dir) })(ctx)
	}
}

// unpacked unpacks the whole pack for packing it again, and gives its folder.
func (in *Input) unpacked(ctx context.Context) (dir string, m *bundle.Manifest, err error) {
	p, err := bundle.OpenFile(in.Pack)
	if err != nil {
		return "", nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	if dir, err = in.folder(); err != nil {
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
