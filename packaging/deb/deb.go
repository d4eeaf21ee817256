// Package deb builds the Debian packages of go-rocm from parts that are already
// there: the command, the unpacked bundle, and its written manual.
//
// There are two layouts, from one description. The default is a single package,
// go-rocm, that one `apt-get install ./go-rocm_VERSION_amd64.deb` makes work.
// With Options.Split there are two, go-rocm (command, service, documentation)
// and go-rocm-llama-VARIANT (the bundle), so that the command can be renewed
// without fetching the bundle again; a repository is where that pays. Both
// layouts install the same files, and apt moves a machine from one to the other.
//
// The same inputs give the same bytes: every entry's time, mode and owner are
// set here and never taken from the file system, the umask, the time zone or the
// clock. The package writes .deb files and no repository: that is packaging/apt.
package deb

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Errors that Build returns wrapped, for callers that tell them apart.
var (
	// ErrOptions says that an option is missing or has no meaning.
	ErrOptions = errors.New("deb options")
	// ErrCommand says that the command is no static linux/amd64 program.
	ErrCommand = errors.New("deb command")
	// ErrBundle says that the bundle's folder is not what its manifest says.
	ErrBundle = errors.New("deb bundle")
)

// Options are the inputs of Build.
type Options struct {
	// Version is go-rocm's own in Semantic Versioning, for example
	// "0.2.0-rc.1+llama.0.5.0". The pre-release part sorts before the release,
	// as apt must see it: it becomes "0.2.0~rc.1+llama.0.5.0".
	Version string
	// Revision counts packagings of the same Version; empty means "1".
	Revision string
	// Epoch is the time of every entry, SOURCE_DATE_EPOCH as a time.
	Epoch time.Time
	// Command is the go-rocm program to install as /usr/bin/go-rocm: static, for
	// linux/amd64, and built without a payload, which it would carry twice.
	Command string
	// BundleDir is the unpacked bundle with its manifest.json.
	BundleDir string
	// Manual is the folder that packaging/assets/writemanual fills: man pages
	// and shell completions.
	Manual string
	// ModuleCache is where Go keeps module sources (`go env GOMODCACHE`): the
	// licences of what is linked into Command are read there.
	ModuleCache string
	// GoRoot is Go's own tree (`go env GOROOT`), for its licence.
	GoRoot string
	// OutDir receives the packages; it is made when it does not exist.
	OutDir string
	// Maintainer is the name and address in the control file; empty means
	// DefaultMaintainer.
	Maintainer string
	// Split asks for two packages instead of one.
	Split bool
}

// DefaultMaintainer is who stands in a package that names nobody else.
const DefaultMaintainer = "The go-rocm authors <go-rocm@forge.lthn.ai>"

// Build writes the packages into o.OutDir and returns their paths. A package
// appears under its name only when it is whole. What is there of the same name
// is replaced.
func Build(ctx context.Context, o Options) ([]string, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	v, err := ParseVersion(o.Version, o.Revision)
	if err != nil {
		return nil, err
	}
	if err := checkCommand(o.Command); err != nil {
		return nil, err
	}
	b, err := readBundle(ctx, o.BundleDir)
	if err != nil {
		return nil, err
	}
	pkgs, err := describe(o, v, b)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.OutDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the output folder: %w", err)
	}
	var out []string
	for _, p := range pkgs {
		name, err := p.write(ctx, o, v)
		if err != nil {
			return nil, fmt.Errorf("write package %s: %w", p.name, err)
		}
		out = append(out, name)
	}
	return out, nil
}

// complete fills in defaults and refuses options that cannot work.
func (o *Options) complete() error {
	for _, need := range []struct{ name, value, remedy string }{
		{"Version", o.Version, "give go-rocm's version"},
		{"Command", o.Command, "give the path of the built command"},
		{"BundleDir", o.BundleDir, "give the folder of the unpacked bundle"},
		{"Manual", o.Manual, "write it with packaging/assets/writemanual"},
		{"ModuleCache", o.ModuleCache, "give the output of `go env GOMODCACHE`"},
		{"GoRoot", o.GoRoot, "give the output of `go env GOROOT`"},
		{"OutDir", o.OutDir, "give the folder for the packages"},
	} {
		if need.value == "" {
			return fmt.Errorf("%w: %s is empty: %s", ErrOptions, need.name, need.remedy)
		}
	}
	if o.Epoch.Unix() <= 0 {
		return fmt.Errorf("%w: Epoch is %s: give the time of the release's commit", ErrOptions, o.Epoch.UTC().Format(time.RFC3339))
	}
	o.Epoch = o.Epoch.UTC().Truncate(time.Second)
	if o.Maintainer == "" {
		o.Maintainer = DefaultMaintainer
	}
	abs, err := filepath.Abs(o.OutDir)
	if err != nil {
		return fmt.Errorf("find the output folder: %w", err)
	}
	o.OutDir = abs
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
