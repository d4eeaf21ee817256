// Package payload holds the packed bundles that were compiled into the
// program, and writes the parts that get compiled in.
//
// A bundle is cut into parts of at most 95 MiB, since Go module proxies and
// git hosts refuse larger single files. The parts are read in place, without
// a copy and without joining them: they stay in the program's own pages,
// which the kernel loads when they are read and drops when memory is short.
//
// The package unpacks nothing; see runtime/extract. Without a bundle it still
// compiles, and Open says what is missing.
package payload

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

const (
	// folder is where the parts are, in the embedded tree and below this
	// package in the source.
	folder = "payload"
	prefix = "llama-"
	// packSuffix ends a pack's name; a dot and three digits number the part.
	packSuffix = ".tar.zst"
)

// ErrNotEmbedded means that no bundle was compiled into this program.
var ErrNotEmbedded = errors.New("no bundle is built in; run mage build, install the go-rocm-llama-hip package, or set GOROCM_BUNDLE")

// Open returns a reader of the bundle that was compiled in. A program with
// several variants built in must name one, see OpenVariant.
func Open() (*bundle.Reader, error) {
	vs, err := Variants()
	if err != nil {
		return nil, err
	}
	switch len(vs) {
	case 0:
		return nil, ErrNotEmbedded
	case 1:
		return OpenVariant(vs[0])
	}
	return nil, fmt.Errorf("several bundles are built in (%s): choose one by its variant", strings.Join(vs, ", "))
}

// Embedded is the tree with the parts that were compiled in, for VariantsIn and
// OpenIn.
func Embedded() fs.FS { return built }

// Variants lists the variants that were compiled in, such as "cpu" and "hip".
func Variants() ([]string, error) { return VariantsIn(built) }

// VariantsIn lists the variants whose parts lie in the folder "payload" of fsys.
func VariantsIn(fsys fs.FS) ([]string, error) {
	packs, err := listParts(fsys)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(packs)), nil
}

// OpenVariant returns a reader of one variant's bundle. The error wraps
// ErrNotEmbedded when it is not there.
func OpenVariant(variant string) (*bundle.Reader, error) {
	return OpenIn(built, variant)
}

// OpenIn is OpenVariant for parts in the folder "payload" of fsys, whose files
// must be io.ReaderAt.
func OpenIn(fsys fs.FS, variant string) (*bundle.Reader, error) {
	packs, err := listParts(fsys)
	if err != nil {
		return nil, err
	}
	names, ok := packs[variant]
	if !ok {
		return nil, fmt.Errorf("variant %q: %w", variant, ErrNotEmbedded)
	}
	parts, err := openParts(fsys, names)
	if err != nil {
		return nil, fmt.Errorf("built-in bundle: %w", err)
	}
	r, err := bundle.Open(parts, parts.Size())
	if err != nil {
		return nil, fmt.Errorf("built-in bundle: %w; build the program again", err)
	}
	if got := r.Manifest().Variant; got != variant {
		return nil, fmt.Errorf("built-in bundle: the parts named %s hold the variant %s; build the program again", variant, got)
	}
	return r, nil
}

// listParts returns the part names of each variant in order, and refuses a
// row with a gap: a missing part would else look like a damaged bundle.
func listParts(fsys fs.FS) (map[string][]string, error) {
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, fmt.Errorf("list built-in bundles: %w", err)
	}
	packs := make(map[string][]string)
	for _, e := range entries { // sorted by name
		variant, number, ok := parsePartName(e.Name())
		if !ok {
			continue
		}
		if want := len(packs[variant]); number != want {
			return nil, fmt.Errorf("built-in bundle %s: part %03d is missing; build the program again", variant, want)
		}
		packs[variant] = append(packs[variant], e.Name())
	}
	return packs, nil
}

func openParts(fsys fs.FS, names []string) (*MultiReaderAt, error) {
	p := new(MultiReaderAt)
	for _, n := range names {
		f, err := fsys.Open(path.Join(folder, n))
		if err != nil {
			return nil, err
		}
		st, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		r, ok := f.(io.ReaderAt)
		if !ok {
			return nil, errors.Join(fmt.Errorf("%s cannot be read at an offset", n), f.Close())
		}
		p.add(r, st.Size())
	}
	return p, nil
}
