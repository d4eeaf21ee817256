package offload

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// CodeObjects sums up the code of a file for one target.
type CodeObjects struct {
	Target  gfx.Target
	Objects int   // code objects that are there
	Bytes   int64 // their size, unpacked
	Kernels int   // kernels in them
}

// kernelSuffix ends the symbol of a kernel descriptor, by the AMDHSA ABI.
const kernelSuffix = ".kd"

// kernelDescriptorSize is the size of a kernel descriptor in the AMDHSA ABI.
const kernelDescriptorSize = 64

// CountKernels returns the target of an AMDGPU code object and the number of
// its kernels: the exported kernel descriptors, which are what the HIP runtime
// looks up.
func CountKernels(code io.ReaderAt) (gfx.ID, int, error) {
	f, err := elfdep.Open(code)
	if err != nil {
		return gfx.ID{}, 0, err
	}
	bad := func(err error) (gfx.ID, int, error) {
		return gfx.ID{}, 0, &elfdep.FormatError{What: "code object", Err: err}
	}
	if f.Machine != gfx.ELFMachine {
		return bad(fmt.Errorf("machine %s, want AMDGPU", f.Machine))
	}
	flags, err := elfFlags(code)
	if err != nil {
		return bad(err)
	}
	id, err := gfx.FromELFFlags(flags, f.ABIVersion)
	if err != nil {
		return bad(err)
	}
	syms, err := elfdep.DynamicSymbols(f)
	if err != nil {
		return gfx.ID{}, 0, err
	}
	n := 0
	for _, s := range syms {
		if s.Section != elf.SHN_UNDEF && s.Size == kernelDescriptorSize && strings.HasSuffix(s.Name, kernelSuffix) {
			n++
		}
	}
	return id, n, nil
}

// elfFlags reads e_flags, which debug/elf does not have.
func elfFlags(r io.ReaderAt) (uint32, error) {
	const offset = 48 // of e_flags in an ELF64 header
	var flags uint32
	err := read(io.NewSectionReader(r, offset, 4), &flags)
	return flags, noEOF(err)
}

// ReadCodeObjects lists the code of the ELF file at path for each target, in
// the order of gfx.Compare. It reads every code object and checks that each is
// for the target that the bundle names. The error is ErrNoFatBinary when there is none.
func ReadCodeObjects(path string) ([]CodeObjects, error) {
	var out []CodeObjects
	err := withFatBinary(path, func(fb *FatBinary, _ *os.File) (err error) {
		out, err = fb.CodeObjects()
		return err
	})
	return out, err
}

// CodeObjects lists the code of the fat binary for each target, in the order of
// gfx.Compare.
func (fb *FatBinary) CodeObjects() ([]CodeObjects, error) {
	var parts []CodeObjects
	for i := range fb.Bundles {
		b := &fb.Bundles[i]
		content, err := fb.Content(b)
		if err != nil {
			return nil, fmt.Errorf("bundle at offset %#x: %w", b.Offset, err)
		}
		for _, e := range b.Entries {
			if e.ID.Host() || e.Size == 0 {
				continue
			}
			id, n, err := CountKernels(io.NewSectionReader(content, e.Offset, e.Size))
			if err == nil && id.Target != e.ID.ID.Target {
				err = &elfdep.FormatError{What: "offload bundle", Err: fmt.Errorf("entry %s has code for %s", e.ID, id)}
			}
			if err != nil {
				return nil, fmt.Errorf("bundle at offset %#x, entry %s: %w", b.Offset, e.ID, err)
			}
			parts = append(parts, CodeObjects{Target: id.Target, Objects: 1, Bytes: e.Size, Kernels: n})
		}
	}
	return SumTargets(parts), nil
}

// ReadCodeObject reads a file that is one code object, such as Tensile's *.co
// and *.hsaco.
func ReadCodeObject(path string) (CodeObjects, error) {
	c := CodeObjects{Objects: 1}
	err := elfdep.WithFile(path, func(_ *elf.File, f *os.File) error {
		fi, err := f.Stat()
		if err != nil {
			return err
		}
		c.Bytes = fi.Size()
		id, n, err := CountKernels(f)
		c.Target, c.Kernels = id.Target, n
		return err
	})
	return c, err
}

// SumTargets adds up what belongs to the same target, in the order of
// gfx.Compare.
func SumTargets(parts []CodeObjects) []CodeObjects {
	sums := map[gfx.Target]CodeObjects{}
	for _, p := range parts {
		s := sums[p.Target]
		sums[p.Target] = CodeObjects{Target: p.Target, Objects: s.Objects + p.Objects, Bytes: s.Bytes + p.Bytes, Kernels: s.Kernels + p.Kernels}
	}
	return slices.SortedFunc(maps.Values(sums), func(a, b CodeObjects) int { return gfx.Compare(a.Target, b.Target) })
}

// TargetError reports a file, or a part of one, without code for exactly the wanted
// targets.
type TargetError struct {
	Where   string       // the file, or what part of it
	Lacks   []gfx.Target // wanted, and not in the file or without any kernel
	Surplus []gfx.Target // in the file, not wanted
}

// Error implements error.
func (e *TargetError) Error() string {
	var parts []string
	if len(e.Lacks) > 0 {
		parts = append(parts, "has no GPU code for "+gfx.Join(e.Lacks, ", ")+"; build it for that target")
	}
	if len(e.Surplus) > 0 {
		parts = append(parts, "still has GPU code for "+gfx.Join(e.Surplus, ", ")+"; slim it")
	}
	return e.Where + " " + strings.Join(parts, " and ")
}

// CheckTargets checks that the ELF file at path has kernels for exactly the
// targets of want; otherwise the error is a *TargetError. A file without GPU
// code lacks them all.
func CheckTargets(path string, want []gfx.Target) ([]CodeObjects, error) {
	got, err := ReadCodeObjects(path)
	if err != nil && !errors.Is(err, ErrNoFatBinary) {
		return nil, err
	}
	te := &TargetError{Where: path}
	has := map[gfx.Target]bool{}
	for _, c := range got {
		has[c.Target] = c.Kernels > 0
		if !slices.Contains(want, c.Target) {
			te.Surplus = append(te.Surplus, c.Target)
		}
	}
	for _, t := range want {
		if !has[t] {
			te.Lacks = append(te.Lacks, t)
		}
	}
	if len(te.Lacks)+len(te.Surplus) > 0 {
		return nil, te
	}
	return got, nil
}
