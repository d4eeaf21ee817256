// Package deb builds the Debian packages of go-rocm from finished parts: the
// command, unpacked bundles, and the generated manual.
//
// The package go-rocm contains the command, its service and its manual. A package
// go-rocm-llama-VARIANT contains a bundle. They are separate so that an upgrade of
// the command does not download a hundred megabytes again: nothing in a bundle's
// package depends on the command, and under the version that it was first given
// it stays byte-identical for as long as the bundle does. A machine has one bundle
// package at a time; the command depends on the llama.cpp release that it was
// built for, in any variant.
//
// The same inputs produce the same bytes: the times, modes and owners of all
// entries are set here and never taken from the file system, the umask, the time
// zone or the clock. The package writes .deb files; packaging/apt publishes them
// in a repository.
package deb

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// Errors that the functions of this package wrap.
var (
	// ErrOptions reports a missing or invalid option.
	ErrOptions = errors.New("deb options")
	// ErrCommand reports that the command is not a static linux/amd64 program.
	ErrCommand = errors.New("deb command")
	// ErrBundle reports that a bundle's directory does not match its manifest.
	ErrBundle = errors.New("deb bundle")
)

// Options apply to every package.
type Options struct {
	// Version is the version of the package in Semantic Versioning, for example
	// "0.2.0-rc.1+llama.0.5.0". A pre-release must sort before its release in apt,
	// so this becomes "0.2.0~rc.1+llama.0.5.0".
	Version string
	// Revision counts the packages of the same Version; empty means "1".
	Revision string
	// Epoch is SOURCE_DATE_EPOCH, the time of every entry.
	Epoch time.Time
	// OutDir is the directory for the package. It is created if necessary.
	OutDir string
	// Maintainer is the name and address in the control file; empty means
	// DefaultMaintainer.
	Maintainer string
	// Recompress makes the data archive of a bundle's package smaller than a compressor
	// in Go does; nil leaves it as it is. It must write one frame with a window of at
	// most MaxWindow.
	Recompress Recompressor
}

// Command lists the inputs of the package with the command.
type Command struct {
	// Program is the go-rocm program for /usr/bin: static, for linux/amd64, and
	// built without an embedded bundle, which the machine would have twice.
	Program string
	// LlamaVersion is the llama.cpp release that the command was built for, such
	// as "v0.5.0". The package requires a bundle of that release or a later one.
	LlamaVersion string
	// Manual is the directory that packaging/manual writes: man pages and shell
	// completions.
	Manual string
	// ModuleCache is the module cache of Go (`go env GOMODCACHE`), for the licences
	// of the modules that are linked into Program.
	ModuleCache string
	// GoRoot is the Go installation (`go env GOROOT`), for its licence.
	GoRoot string
	// Page lists the components of the web page in Program, as packaging/licences
	// reads it; empty if Program has no page.
	Page string
}

// DefaultMaintainer is the maintainer of packages built without a name. The
// address can belong to nobody (RFC 2606).
const DefaultMaintainer = "Unnamed builder <nobody@go-rocm.invalid>"

// BuildCommand writes the package go-rocm into o.OutDir and returns its path. It
// writes atomically and replaces an existing file.
func BuildCommand(ctx context.Context, o Options, c Command) (string, error) {
	v, err := o.complete()
	if err != nil {
		return "", err
	}
	if err := c.check(); err != nil {
		return "", err
	}
	p, err := newCommandPackage(o, v, c)
	if err != nil {
		return "", err
	}
	return p.build(ctx, o, v)
}

// BuildBundle writes the package with the unpacked bundle in dir, as BuildCommand
// does. Its name depends on the variant of the bundle.
func BuildBundle(ctx context.Context, o Options, dir string) (string, error) {
	v, err := o.complete()
	if err != nil {
		return "", err
	}
	if dir == "" {
		return "", fmt.Errorf("%w: no bundle: pass the directory of an unpacked one", ErrOptions)
	}
	b, err := readBundle(ctx, dir)
	if err != nil {
		return "", err
	}
	p, err := newBundlePackage(o, v, b)
	if err != nil {
		return "", err
	}
	return p.build(ctx, o, v)
}

// complete fills in the defaults, validates the options and parses the version.
func (o *Options) complete() (Version, error) {
	if err := checkRequired([]option{
		{"Version", o.Version, "set the version of the package"},
		{"OutDir", o.OutDir, "set the directory for the package"},
	}); err != nil {
		return Version{}, err
	}
	if o.Epoch.Unix() <= 0 {
		return Version{}, fmt.Errorf("%w: Epoch is %s: set the time of the release's commit", ErrOptions, o.Epoch.UTC().Format(time.RFC3339))
	}
	o.Epoch = o.Epoch.UTC().Truncate(time.Second)
	o.Maintainer = cmp.Or(o.Maintainer, DefaultMaintainer)
	abs, err := filepath.Abs(o.OutDir)
	if err != nil {
		return Version{}, fmt.Errorf("resolve the output directory: %w", err)
	}
	o.OutDir = abs
	return ParseVersion(o.Version, o.Revision)
}

func (c Command) check() error {
	if err := checkRequired([]option{
		{"Program", c.Program, "set the path of the built command"},
		{"LlamaVersion", c.LlamaVersion, "set the llama.cpp release that the command was built for"},
		{"Manual", c.Manual, "write it with packaging/manual"},
		{"ModuleCache", c.ModuleCache, "set the output of `go env GOMODCACHE`"},
		{"GoRoot", c.GoRoot, "set the output of `go env GOROOT`"},
	}); err != nil {
		return err
	}
	return checkProgram(c.Program)
}

// option is the value of an option, and the remedy if it is empty.
type option struct{ name, value, remedy string }

func checkRequired(options []option) error {
	for _, o := range options {
		if o.value == "" {
			return fmt.Errorf("%w: %s is empty: %s", ErrOptions, o.name, o.remedy)
		}
	}
	return nil
}

// checkProgram rejects a program that would not run on a minimal amd64 Debian.
func checkProgram(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %s is not an ELF program: %w", ErrCommand, path, err)
	}
	defer func() { _ = f.Close() }()
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return fmt.Errorf("%w: %s is for %s: build it with GOOS=linux GOARCH=amd64", ErrCommand, path, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%w: %s requires a dynamic loader: build it with CGO_ENABLED=0", ErrCommand, path)
		}
	}
	return nil
}
