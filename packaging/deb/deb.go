// Package deb builds the Debian packages of go-rocm from parts that are already
// there: the command, unpacked bundles, and the written manual.
//
// go-rocm has the command, its service and its manual; go-rocm-llama-VARIANT has
// a bundle. They are apart so that a machine whose command is renewed does not
// fetch a hundred megabytes that it has: nothing in a bundle's package comes of
// the command, and with the version that it was first given it is the same to the
// last byte for as long as the bundle is. Of the packages with a bundle a machine
// has one; the command asks for the llama.cpp release that it was made for, in
// any variant.
//
// The same inputs give the same bytes: every entry's time, mode and owner are
// set here and never taken from the file system, the umask, the time zone or the
// clock. The package writes .deb files and no repository: that is packaging/apt.
package deb

import (
	"cmp"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Errors that are returned wrapped, for callers that tell them apart.
var (
	// ErrOptions says that an option is missing or has no meaning.
	ErrOptions = errors.New("deb options")
	// ErrCommand says that the command is no static linux/amd64 program.
	ErrCommand = errors.New("deb command")
	// ErrBundle says that the bundle's folder is not what its manifest says.
	ErrBundle = errors.New("deb bundle")
)

// Options are what every package is made with.
type Options struct {
	// Version is the package's own in Semantic Versioning, for example
	// "0.2.0-rc.1+llama.0.5.0". The pre-release part sorts before the release,
	// as apt must see it: it becomes "0.2.0~rc.1+llama.0.5.0".
	Version string
	// Revision counts packagings of the same Version; empty means "1".
	Revision string
	// Epoch is the time of every entry, SOURCE_DATE_EPOCH as a time.
	Epoch time.Time
	// OutDir receives the package; it is made when it does not exist.
	OutDir string
	// Maintainer is the name and address in the control file; empty means
	// DefaultMaintainer.
	Maintainer string
}

// Command is what goes into the package with the command.
type Command struct {
	// Program is go-rocm, to be installed as /usr/bin/go-rocm: static, for
	// linux/amd64, and built without a payload, which the machine would have
	// twice.
	Program string
	// LlamaVersion is the llama.cpp release that the command was made for, such as
	// "v0.5.0": a bundle of an earlier one does not do.
	LlamaVersion string
	// Manual is the folder that packaging/manual fills: man pages and shell
	// completions.
	Manual string
	// ModuleCache is where Go keeps module sources (`go env GOMODCACHE`): the
	// licences of what is linked into Program are read there.
	ModuleCache string
	// GoRoot is Go's own tree (`go env GOROOT`), for its licence.
	GoRoot string
}

// DefaultMaintainer stands in a package whose maker gave no name: an address
// that can belong to nobody (RFC 2606).
const DefaultMaintainer = "Unnamed builder <nobody@go-rocm.invalid>"

// BuildCommand writes the package go-rocm into o.OutDir and returns its path. It
// appears under its name only when it is whole; what is there of the same name is
// replaced.
func BuildCommand(ctx context.Context, o Options, c Command) (string, error) {
	v, err := o.complete()
	if err != nil {
		return "", err
	}
	if err := c.check(); err != nil {
		return "", err
	}
	p, err := describeCommand(o, v, c)
	if err != nil {
		return "", err
	}
	return p.build(ctx, o, v)
}

// BuildBundle writes the package with the unpacked bundle in dir, as BuildCommand
// does. Its name is that of the bundle's variant.
func BuildBundle(ctx context.Context, o Options, dir string) (string, error) {
	v, err := o.complete()
	if err != nil {
		return "", err
	}
	if dir == "" {
		return "", fmt.Errorf("%w: no bundle is named: give the folder of the unpacked one", ErrOptions)
	}
	b, err := readBundle(ctx, dir)
	if err != nil {
		return "", err
	}
	p, err := describeBundle(o, v, b)
	if err != nil {
		return "", err
	}
	return p.build(ctx, o, v)
}

func (p *pkg) build(ctx context.Context, o Options, v Version) (string, error) {
	if err := os.MkdirAll(o.OutDir, 0o755); err != nil {
		return "", fmt.Errorf("make the output folder: %w", err)
	}
	name, err := p.write(ctx, o, v)
	if err != nil {
		return "", fmt.Errorf("write package %s: %w", p.name, err)
	}
	return name, nil
}

// complete fills in defaults, refuses options that cannot work and reads the
// version.
func (o *Options) complete() (Version, error) {
	if err := given([]option{
		{"Version", o.Version, "give the package's version"},
		{"OutDir", o.OutDir, "give the folder for the package"},
	}); err != nil {
		return Version{}, err
	}
	if o.Epoch.Unix() <= 0 {
		return Version{}, fmt.Errorf("%w: Epoch is %s: give the time of the release's commit", ErrOptions, o.Epoch.UTC().Format(time.RFC3339))
	}
	o.Epoch = o.Epoch.UTC().Truncate(time.Second)
	o.Maintainer = cmp.Or(o.Maintainer, DefaultMaintainer)
	abs, err := filepath.Abs(o.OutDir)
	if err != nil {
		return Version{}, fmt.Errorf("find the output folder: %w", err)
	}
	o.OutDir = abs
	return ParseVersion(o.Version, o.Revision)
}

func (c Command) check() error {
	if err := given([]option{
		{"Program", c.Program, "give the path of the built command"},
		{"LlamaVersion", c.LlamaVersion, "give the llama.cpp release that the command was made for"},
		{"Manual", c.Manual, "write it with packaging/manual"},
		{"ModuleCache", c.ModuleCache, "give the output of `go env GOMODCACHE`"},
		{"GoRoot", c.GoRoot, "give the output of `go env GOROOT`"},
	}); err != nil {
		return err
	}
	return checkCommand(c.Program)
}

// option is an option's value, and what to do when it is empty.
type option struct{ name, value, remedy string }

func given(options []option) error {
	for _, need := range options {
		if need.value == "" {
			return fmt.Errorf("%w: %s is empty: %s", ErrOptions, need.name, need.remedy)
		}
	}
	return nil
}

// checkCommand refuses a program that would not run on a bare amd64 Debian.
func checkCommand(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("%w: %s is no ELF program: %w", ErrCommand, path, err)
	}
	defer func() { _ = f.Close() }()
	if f.Machine != elf.EM_X86_64 || f.Class != elf.ELFCLASS64 {
		return fmt.Errorf("%w: %s is for %s: build it with GOOS=linux GOARCH=amd64", ErrCommand, path, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%w: %s needs a dynamic loader: build it with CGO_ENABLED=0", ErrCommand, path)
		}
	}
	return nil
}
