// Package payload embeds packed bundles in the program, and writes the parts to
// embed.
//
// A bundle is split into parts of at most 95 MiB, since git hosts reject larger
// files. The parts are read in place, without copying or joining them: they are
// pages of the executable, which the kernel loads on access and drops when memory
// is short.
//
// The package unpacks nothing; see runtime/extract. It compiles without a bundle,
// and then Open returns [ErrNotEmbedded].
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
	// directory contains the parts, in the embedded tree and below this package
	// in the source.
	directory = "payload"
	prefix    = "llama-"
	// packSuffix ends a pack's name. A dot and three digits number the part.
	packSuffix = ".tar.zst"
)

// ErrNotEmbedded means that this program has no embedded bundle.
var ErrNotEmbedded = errors.New("no bundle is built in; run mage build, install the go-rocm-llama-hip package, or set GOROCM_BUNDLE")

// Open returns a reader of the embedded bundle. A program with several embedded
// variants must choose one with OpenVariant.
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
	return nil, fmt.Errorf("several bundles are embedded (%s): choose one by its variant", strings.Join(vs, ", "))
}

// Embedded returns the tree with the embedded parts, for VariantsIn and OpenIn.
func Embedded() fs.FS { return embedded }

// Variants returns the embedded variants, such as "cpu" and "hip".
func Variants() ([]string, error) { return VariantsIn(embedded) }

// VariantsIn returns the variants with parts in the directory "payload" of fsys.
func VariantsIn(fsys fs.FS) ([]string, error) {
	packs, err := listParts(fsys)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(packs)), nil
}

// OpenVariant returns a reader of one variant's bundle. The error wraps
// ErrNotEmbedded if there is none.
func OpenVariant(variant string) (*bundle.Reader, error) {
	return OpenIn(embedded, variant)
}

// OpenIn is OpenVariant for parts in the directory "payload" of fsys, whose files
// must implement io.ReaderAt.
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
		return nil, fmt.Errorf("embedded bundle: %w", err)
	}
	r, err := bundle.Open(parts, parts.Size())
	if err != nil {
		return nil, fmt.Errorf("embedded bundle: %w; build the program again", err)
	}
	if got := r.Manifest().Variant; got != variant {
		return nil, fmt.Errorf("embedded bundle: the parts named %s contain the variant %s; build the program again", variant, got)
	}
	return r, nil
}

// listParts returns the part names of each variant in order. It rejects a missing
// part, which would otherwise look like a damaged bundle.
func listParts(fsys fs.FS) (map[string][]string, error) {
	entries, err := fs.ReadDir(fsys, directory)
	if err != nil {
		return nil, fmt.Errorf("list embedded bundles: %w", err)
	}
	packs := make(map[string][]string)
	for _, e := range entries { // sorted by name
		variant, number, ok := parsePartName(e.Name())
		if !ok {
			continue
		}
		if want := len(packs[variant]); number != want {
			return nil, fmt.Errorf("embedded bundle %s: part %03d is missing; build the program again", variant, want)
		}
		packs[variant] = append(packs[variant], e.Name())
	}
	return packs, nil
}

func openParts(fsys fs.FS, names []string) (*MultiReaderAt, error) {
	p := new(MultiReaderAt)
	for _, n := range names {
		f, err := fsys.Open(path.Join(directory, n))
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
