package hostrocm

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// targetInName finds the GPU target in the name of one of rocBLAS's files.
const targetInName = `[_-](gfx[0-9a-f]+)(?:-xnack[+-])?\.(?:co|hsaco|dat)$`

// kernels looks for rocBLAS's kernels, beside the library as it does itself, by
// the name that the library was loaded by: rocblas/library in AMD's packages,
// rocblas/VERSION/library in Debian's.
func (s *search) kernels(p place, h *Installation) {
	i := slices.IndexFunc(h.Libraries, func(l elfdep.Lib) bool { return strings.HasPrefix(l.SONAME, "librocblas.so.") })
	if i < 0 {
		return
	}
	file := s.first(slices.Concat(p.folders, s.layout.search), h.Libraries[i].SONAME)
	if file == "" {
		file = h.Libraries[i].InRoot // found by a run path
	}
	base := path.Join(path.Dir(file), "rocblas")
	folders := []string{path.Join(base, "library")}
	for _, name := range s.fs.names(base) {
		folders = append(folders, path.Join(base, name, "library"))
	}
	re := regexp.MustCompile(targetInName)
	for _, dir := range folders {
		for _, name := range s.fs.names(dir) {
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
