package recipe

import (
	"bytes"
	_ "embed" // the recorded sizes are part of the program
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/tensile"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Sizes are a variant's recorded sizes in bytes, and which GPU kernels it ships.
type Sizes struct {
	Packed   int64 `json:"packed"`
	Unpacked int64 `json:"unpacked"` // the sum of the files, holes included
	// Disk is the space of the unpacked bundle in blocks (bundle.Reader.DiskUsage), by the
	// target for which it is unpacked, and under allTargets for all of them.
	Disk map[string]int64 `json:"disk"`
	// Targets are the GPU targets of the record.
	Targets []string `json:"targets,omitempty"`
	// Tensile counts rocBLAS's kernels by target, and under sharedFiles those that serve every
	// target.
	Tensile map[string]TensileCount `json:"tensile,omitempty"`
}

// TensileCount is the number of files and kernels of rocBLAS that a bundle contains for a target.
type TensileCount struct {
	Files   int `json:"files"`
	Kernels int `json:"kernels"`
}

const (
	allTargets  = "all"
	sharedFiles = "shared"
)

//go:embed sizes.lock.json
var sizesJSON []byte

// RecordedSizes returns the sizes of each bundle, by its label, as `mage lock` recorded them.
func RecordedSizes() (map[string]Sizes, error) { return ParseSizes(sizesJSON) }

// ParseSizes parses recorded sizes. Unknown fields and trailing text are errors.
func ParseSizes(b []byte) (map[string]Sizes, error) {
	all := map[string]Sizes{}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&all); err != nil {
		return nil, fmt.Errorf("recorded sizes: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("recorded sizes: more text at offset %d", dec.InputOffset())
	}
	return all, nil
}

// FormatSizes formats sizes as in the lock file.
func FormatSizes(all map[string]Sizes) ([]byte, error) {
	b, err := json.MarshalIndent(all, "", "  ")
	return append(b, '\n'), err
}

// Sizes returns the sizes of a packed bundle.
func (p *Packed) Sizes() (s Sizes, err error) {
	f, err := bundle.OpenFile(p.File)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s = Sizes{Packed: p.Size, Unpacked: p.Manifest.Size(), Disk: map[string]int64{}}
	s.Disk[allTargets], _ = f.DiskUsage(nil, "")
	for _, t := range p.Manifest.Targets {
		s.Targets = append(s.Targets, t.String())
		s.Disk[t.String()], _ = f.DiskUsage(func(f bundle.File) bool { return f.Target == "" || f.Target == t }, t)
	}
	s.Tensile = countTensile(p.Manifest)
	return s, nil
}

// countTensile counts the files of rocBLAS's directory in a bundle; nil if there are none.
func countTensile(m *bundle.Manifest) map[string]TensileCount {
	var count map[string]TensileCount
	add := func(file string, target gfx.Target, c TensileCount) {
		if _, err := tensile.ParseName(path.Base(file)); err != nil {
			return
		}
		key := target.String()
		if target == "" {
			key = sharedFiles
		}
		if count == nil {
			count = map[string]TensileCount{}
		}
		count[key] = TensileCount{count[key].Files + c.Files, count[key].Kernels + c.Kernels}
	}
	for _, f := range m.Files {
		add(f.Path, f.Target, TensileCount{Files: 1})
	}
	for _, o := range m.CodeObjects {
		add(o.File, o.Target, TensileCount{Kernels: o.Kernels})
	}
	return count
}

// TensileError reports that a bundle contains other kernels of rocBLAS than recorded.
type TensileError struct {
	Variant       string
	Recorded, Now map[string]TensileCount
}

// Error names the targets that differ and the way to accept it.
func (e *TensileError) Error() string {
	all := maps.Clone(e.Recorded)
	if all == nil {
		all = map[string]TensileCount{}
	}
	maps.Copy(all, e.Now)
	var parts []string
	for _, t := range slices.Sorted(maps.Keys(all)) {
		if old, now := e.Recorded[t], e.Now[t]; old != now {
			parts = append(parts, fmt.Sprintf("%s: %d files with %d kernels, recorded are %d with %d", t, now.Files, now.Kernels, old.Files, old.Kernels))
		}
	}
	return fmt.Sprintf("the %s bundle ships other Tensile files of rocBLAS than recorded (%s): find out why, or accept it with `mage lock`",
		e.Variant, strings.Join(parts, "; "))
}

// CheckTensile compares the kernels of rocBLAS in a bundle with the record. Fewer kernels are an
// error too, since a missing one is noticed only on a GPU. Bundles that CheckSize does not compare
// with the record pass.
func CheckTensile(recorded map[string]Sizes, variant string, now Sizes) error {
	old, ok := recorded[variant]
	if !ok || !slices.Equal(old.Targets, now.Targets) || maps.Equal(old.Tensile, now.Tensile) {
		return nil
	}
	return &TensileError{Variant: variant, Recorded: old.Tensile, Now: now.Tensile}
}
