package locate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// OriginServer is a llama-server that is not from a bundle of this project: that of a
// distribution, or one that the user compiled.
const OriginServer Origin = "server"

// ErrNotServer reports that a program is not a llama-server that can be used.
var ErrNotServer = errors.New("not a usable llama-server")

// FindServer returns the llama-server at path, a program or a name in $PATH, as a
// bundle that cannot be verified. The caller closes it.
func FindServer(path string) (*Bundle, error) {
	name := path
	if !strings.ContainsRune(path, filepath.Separator) {
		// LookPath would find it too, but says less about a file that is no program.
		for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
			if info, err := os.Stat(filepath.Join(dir, path)); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				name = filepath.Join(dir, path)
				break
			}
		}
	}
	abs, err := filepath.Abs(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrNotServer, path, err)
	}
	info, err := os.Stat(abs)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w; name the program llama-server (Settings.Server, --server)", ErrNotServer, err)
	case info.IsDir():
		return nil, fmt.Errorf("%w: %s is a directory; name the program in it, or use the directory as a bundle (Settings.Bundle, --bundle)", ErrNotServer, abs)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return nil, fmt.Errorf("%w: %s is not an executable file", ErrNotServer, abs)
	}
	if err := checkServerDir(filepath.Dir(abs)); err != nil {
		return nil, err
	}
	return &Bundle{
		Origin: OriginServer, Path: abs, Dir: filepath.Dir(abs), program: abs,
		close: func() error { return nil },
	}, nil
}

// checkServerDir rejects a directory in which every user may create files, such as
// /tmp: llama-server loads the modules of ggml that are beside it.
func checkServerDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o002 != 0 {
		err = fmt.Errorf("every user may put a module beside it into %s; move it into a directory of its own", dir)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotServer, err)
	}
	return nil
}

// ServerFacts are what a llama-server says of itself.
type ServerFacts struct {
	// Version is the first line of --version, without its heading.
	Version string
	// Listed are its devices other than the CPU.
	Listed []gpu.Listed
}

// Has reports whether a device of a backend is listed, such as "ROCm".
func (f ServerFacts) Has(backend string) bool {
	for _, d := range f.Listed {
		if d.Backend() == backend {
			return true
		}
	}
	return false
}

// Ask runs the program with --version and --list-devices. Its error wraps
// [ErrNotServer] for a program that answers neither as llama-server does.
func (b *Bundle) Ask(ctx context.Context, log *slog.Logger) (ServerFacts, error) {
	var facts ServerFacts
	p, err := b.Unpack(ctx, UnpackOptions{Log: log})
	if err != nil {
		return facts, err
	}
	defer func() { _ = p.Close() }()
	probe := supervise.Probe{Argv: p.Argv, Dir: p.Dir}
	stdout, stderr, err := supervise.Output(ctx, probe, nil, "--version")
	if err != nil {
		return facts, b.notServer(ctx, err)
	}
	for line := range strings.Lines(string(stdout) + "\n" + string(stderr)) { // v0.5.0 writes to stderr
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "version: "); ok {
			facts.Version = rest
			break
		}
	}
	stdout, _, err = supervise.Output(ctx, probe, nil, "--list-devices")
	if err != nil {
		return facts, b.notServer(ctx, err)
	}
	var ok bool
	if facts.Listed, ok = gpu.ParseList(stdout); !ok || facts.Version == "" {
		return facts, b.notServer(ctx, errors.New("its --version and --list-devices do not answer as llama-server's do"))
	}
	return facts, nil
}

func (b *Bundle) notServer(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrNotServer, b.Path, err)
}
