package elfdep

import (
	"debug/elf"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// tensileFolder is how rocBLAS writes down a folder of kernels, to be put
// after the folder that it lies in itself.
const tensileFolder = `^/[A-Za-z0-9_./-]*library$`

// TensileFolders returns the folders in which the rocBLAS library at path
// looks for its kernels, relative to its own: "rocblas/4.4.1/library" (Debian)
// or "rocblas/library" (AMD), then those that leave its folder, which a bundle
// should not rely on. ROCBLAS_TENSILE_LIBPATH aside, rocBLAS takes the first
// that exists, by an order that its data does not tell. Linkers merge a string
// that is the tail of another, so "library" and "rocblas/library" may be looked
// for as well without being listed.
func TensileFolders(path string) ([]string, error) {
	var out []string
	err := withELF(path, func(f *elf.File, _ *os.File) error {
		re := regexp.MustCompile(tensileFolder)
		for _, s := range f.Sections {
			if !holdsData(s) {
				continue
			}
			data, err := s.Data()
			if err != nil {
				return &FormatError{What: "section " + s.Name, Err: err}
			}
			for name := range stringsWith(data, "library") {
				if re.MatchString(name) && strings.Contains(name, "/library") {
					out = append(out, cleanFolder(name))
				}
			}
		}
		return nil
	})
	slices.SortFunc(out, compareFolders)
	return slices.Compact(out), err
}

func cleanFolder(name string) string { return strings.TrimPrefix(path.Clean("."+name), "./") }

// compareFolders puts folders inside before those outside, deeper ones (which
// name a version) before others.
func compareFolders(a, b string) int {
	outside := func(s string) int {
		if strings.HasPrefix(s, "../") {
			return 1
		}
		return 0
	}
	if c := outside(a) - outside(b); c != 0 {
		return c
	}
	if c := strings.Count(b, "/") - strings.Count(a, "/"); c != 0 {
		return c
	}
	return strings.Compare(a, b)
}
