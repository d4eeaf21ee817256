// Package hsa puts an emulated card under the HIP runtime of a bundle, for tests: it
// builds libhsa-runtime64.so.1 from package runtime below it and makes a copy of the
// bundle with that one file replaced. Everything else in the copy is what ships.
package hsa

import (
	"context"
	_ "embed" // for the probe
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Library is the name of the file that is replaced.
const Library = "libhsa-runtime64.so.1"

// EnvCards is the variable that names the cards of a process by their targets, with
// commas: "gfx1100,gfx1101". Without it there is one gfx1100. A colon and a number of MiB
// give a card less memory than its model has: "gfx1100:512".
const EnvCards = "GOROCM_EMULATED_CARDS"

// EnvReport is the variable with the paths of files, with colons, that get a line for each
// dispatch: target, kernel, groups, instructions, lane-instructions and microseconds.
const EnvReport = "GOROCM_EMULATED_REPORT"

// EnvCoverage is the variable with the paths of files, with colons, that get each kernel that ran to its end, with its
// target and its code object, once for each process. Package survey reads them.
const EnvCoverage = "GOROCM_EMULATED_COVERAGE"

// EnvReset is the variable with the time after which the kernel driver resets a card
// whose kernel does not end. Without it the kernel runs on.
const EnvReset = "GOROCM_EMULATED_RESET"

const source = "forge.lthn.ai/core/go-rocm/testing/hsa/runtime"

// Build builds the library into a directory and returns its path. It needs a C
// compiler. The same source makes the same file.
func Build(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-find", "-f", "{{.Dir}}", source).Output()
	if err != nil {
		return "", fmt.Errorf("find %s: %w", source, explain(err))
	}
	from := strings.TrimSpace(string(out))
	path := filepath.Join(dir, Library)
	flags := "-extldflags '-Wl,-soname," + Library + " -Wl,--version-script=" + filepath.Join(from, "versions.map") + "'"
	cmd := exec.CommandContext(ctx, "go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags", flags, "-o", path, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if _, err := cmd.Output(); err != nil {
		return "", fmt.Errorf("build %s: %w", Library, explain(err))
	}
	return path, os.Remove(filepath.Join(dir, strings.TrimSuffix(Library, filepath.Ext(Library))+".h"))
}

//go:embed testdata/probe.c
var probe []byte

// Probe builds the program that calls the HIP runtime, into a directory, and returns
// its path. The program's comment lists its commands.
func Probe(ctx context.Context, dir string) (string, error) {
	from, path := filepath.Join(dir, "probe.c"), filepath.Join(dir, "probe")
	if err := os.WriteFile(from, probe, 0o600); err != nil {
		return "", err
	}
	if _, err := exec.CommandContext(ctx, "cc", "-Wall", "-Wextra", "-Werror", "-O1", "-o", path, from, "-ldl").Output(); err != nil {
		return "", fmt.Errorf("build the probe: %w", explain(err))
	}
	return path, nil
}

// Replace makes a copy of an unpacked bundle in a directory that does not exist,
// with the library in the place of the ROCm runtime. Files are linked where the file
// system allows it.
func Replace(bundle, library, dir string) error {
	replaced := false
	err := filepath.WalkDir(bundle, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(bundle, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		switch {
		case d.IsDir():
			return os.MkdirAll(to, 0o700)
		case rel == Library:
			replaced = true
			return copyFile(library, to)
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, to)
		}
		if os.Link(path, to) == nil {
			return nil
		}
		return copyFile(path, to)
	})
	if err == nil && !replaced {
		return errors.New("the bundle has no " + Library)
	}
	return err
}

func copyFile(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, info.Mode().Perm())
}

// explain returns the error with what the program wrote to stderr.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return err
}
