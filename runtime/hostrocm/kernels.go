package hostrocm

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// targetInName matches the GPU target in the name of a file of rocBLAS.
const targetInName = `[_-](gfx[0-9a-f]+)(?:-xnack[+-])?\.(?:co|hsaco|dat)$`

// findKernels searches rocBLAS's kernels where rocBLAS itself does, beside the file
// by which the library was loaded: rocblas/library in AMD's packages,
// rocblas/VERSION/library in Debian's.
func (s *finder) findKernels(p location, h *Installation) {
	i := slices.IndexFunc(h.Libraries, func(l elfdep.Lib) bool { return strings.HasPrefix(l.SONAME, "librocblas.so.") })
	if i < 0 {
		return
	}
	file := s.findFile(slices.Concat(p.dirs, s.layout.searchDirs), h.Libraries[i].SONAME)
	if file == "" {
		file = h.Libraries[i].InRoot // found by a run path
	}
	base := path.Join(path.Dir(file), "rocblas")
	dirs := []string{path.Join(base, "library")}
	for _, name := range s.fs.listDir(base) {
		dirs = append(dirs, path.Join(base, name, "library"))
	}
	re := regexp.MustCompile(targetInName)
	for _, dir := range dirs {
		for _, name := range s.fs.listDir(dir) {
			m := re.FindStringSubmatch(name)
			if m == nil {
				continue
			}
			h.KernelDir = dir
			if t, err := gfx.Parse(m[1]); err == nil && !slices.Contains(h.KernelTargets, t) {
				h.KernelTargets = append(h.KernelTargets, t)
			}
		}
		if h.KernelDir != "" {
			break
		}
	}
	gfx.Sort(h.KernelTargets)
}
