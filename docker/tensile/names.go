// Package tensile reads the names of rocBLAS's kernel files, which AMD's Tensile
// generates, and selects those that a bundle needs.
package tensile

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
)

// File is the parsed name of a file in rocBLAS's library directory.
type File struct {
	Name string
	Kind Kind
	// Target is the file's GPU; zero if it serves all (the index of fallback kernels).
	Target gfx.ID
	// Type is the pair of data types in Tensile's spelling: input and output, such as "SS"
	// (float32), "HH" (float16), "BB" (bfloat16), "I8I", "DD" (float64), "CC" and "ZZ"
	// (complex). Empty for files without a type.
	Type string
	// HPA is set for "high precision accumulate": half-sized inputs are added
	// up as float32.
	HPA bool
	// Variant names a special set of kernels, such as "Fp16Alt" or "CU104"
	// (for devices with 104 compute units); mostly empty.
	Variant string
	// Fallback is set for kernels that are not tuned for the target.
	Fallback bool
}

// Kind is the kind of content of a file.
type Kind string

// The kinds of file in a Tensile library directory.
const (
	Index   Kind = "index"   // TensileLibrary_lazy_*.dat: which files to load for which problem
	Kernels Kind = "kernels" // *.co, *.hsaco of one type: machine code
	Map     Kind = "map"     // *.dat of one type: which kernel to use for which size
	Common  Kind = "common"  // Kernels.so-*.hsaco: kernels that Tensile itself needs
)

// tensileName matches the names of Tensile's lazy library loading (rocBLAS 4.x, ROCm 5.5 and later).
const tensileName = `^(?:` +
	`Kernels\.so-000-(` + tensileTarget + `)\.hsaco|` +
	`TensileLibrary_lazy_(` + tensileTarget + `)\.dat|` +
	`TensileLibrary_Type_([A-Z0-9]+)(_HPA)?((?:_[A-Za-z0-9]+)*?)` +
	`_Contraction_l_[A-Za-z]+_[A-Za-z]+_Cijk_Dijk(_CU[0-9]+)?(_fallback)?(?:_(` + tensileTarget + `))?\.(dat|co|hsaco)` +
	`)$`

const tensileTarget = `gfx[0-9a-z]+(?:-xnack[+-])?`

// ParseName classifies a file of rocBLAS's library directory by its name.
// A name of another form is an error: a bundle must not contain or omit files of unknown content.
func ParseName(name string) (File, error) {
	m := regexp.MustCompile(tensileName).FindStringSubmatch(name)
	if m == nil {
		return File{}, fmt.Errorf("%q is not the name of a Tensile library file known here (rocBLAS 4.x)", name)
	}
	f := File{Name: name, Type: m[3], HPA: m[4] != "", Variant: strings.Trim(m[5]+m[6], "_"), Fallback: m[7] != ""}
	target := m[1] + m[2] + m[8] // at most one is there
	switch {
	case m[1] != "":
		f.Kind = Common
	case m[2] != "":
		f.Kind = Index
	case m[9] == "dat":
		f.Kind = Map
	default:
		f.Kind = Kernels
	}
	if target == "" {
		if f.Kind != Map || !f.Fallback {
			return File{}, fmt.Errorf("tensile file %q names no target", name)
		}
		return f, nil
	}
	id, err := gfx.ParseID(strings.Replace(target, "-xnack", ":xnack", 1))
	if err != nil {
		return File{}, fmt.Errorf("tensile file %q: %w", name, err)
	}
	f.Target = id
	return f, nil
}

// Shared reports whether the file serves every target.
func (f File) Shared() bool { return f.Target.Target == "" }

// Complex reports whether the file is for complex numbers.
func (f File) Complex() bool { return f.Type == "CC" || f.Type == "ZZ" }

// Double reports whether the file is for real numbers of 64 bits.
func (f File) Double() bool { return f.Type == "DD" }

// Integer reports whether the file is for integers.
func (f File) Integer() bool { return strings.HasPrefix(f.Type, "I") }

// Selection lists the files of a Tensile directory that a bundle contains, and the others.
type Selection struct {
	Keep, Drop []File // sorted by name
}

// Select splits the files of a Tensile directory into those that the targets need and the others.
// skip omits more, such as types that the program never uses; nil skips none. The error is a
// *TargetError if the directory lacks the index, the common kernels or the code of a target.
func Select(names []string, targets []gfx.Target, skip func(File) bool) (Selection, error) {
	var sel Selection
	seen := map[gfx.Target]map[Kind]bool{}
	for _, t := range targets {
		seen[t] = map[Kind]bool{}
	}
	sorted := slices.Sorted(slices.Values(names))
	for _, n := range sorted {
		f, err := ParseName(n)
		if err != nil {
			return Selection{}, err
		}
		kinds, wanted := seen[f.Target.Target]
		if (!wanted && !f.Shared()) || (skip != nil && f.Type != "" && skip(f)) {
			sel.Drop = append(sel.Drop, f)
			continue
		}
		sel.Keep = append(sel.Keep, f)
		if wanted {
			kinds[f.Kind] = true
		}
	}
	var lacks []gfx.Target
	for _, t := range targets {
		if k := seen[t]; !k[Index] || !k[Common] || !k[Kernels] {
			lacks = append(lacks, t)
		}
	}
	if len(lacks) > 0 {
		return Selection{}, &offload.TargetError{Where: "the Tensile library directory", Lacks: lacks}
	}
	return sel, nil
}

// Code reads the code of the selected files below dir, checks that each
// is for the target in its name, and adds up the kernels of each
// target, in the order of gfx.Compare.
func (sel Selection) Code(dir string) ([]offload.CodeObjects, error) {
	var parts []offload.CodeObjects
	for _, f := range sel.Keep {
		if f.Kind != Kernels && f.Kind != Common {
			continue
		}
		c, err := offload.ReadCodeObject(filepath.Join(dir, f.Name))
		if err != nil {
			return nil, err
		}
		if c.Target != f.Target.Target {
			return nil, fmt.Errorf("%s has code for %s", filepath.Join(dir, f.Name), c.Target)
		}
		parts = append(parts, c)
	}
	return offload.SumTargets(parts), nil
}
