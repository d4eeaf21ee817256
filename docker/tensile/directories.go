package tensile

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// directoryForm matches a directory of kernels as rocBLAS's data names it: the
// path that rocBLAS appends to the directory of its own library.
const directoryForm = `^/[A-Za-z0-9_./-]*library$`

// Directories returns the directories in which the rocBLAS library at path
// looks for its kernels, relative to its own: "rocblas/4.4.1/library" (Debian)
// or "rocblas/library" (AMD), then those outside its directory, which a bundle
// should not rely on. Unless ROCBLAS_TENSILE_LIBPATH is set, rocBLAS uses the
// first that exists, in an order that its data does not show. Linkers merge a
// string that is the tail of another, so rocBLAS may also look in "library" and
// "rocblas/library" where the list lacks them.
func Directories(path string) ([]string, error) {
	names, err := elfdep.DataStrings(path, "library")
	if err != nil {
		return nil, err
	}
	re := regexp.MustCompile(directoryForm)
	var out []string
	for _, name := range names {
		if re.MatchString(name) && strings.Contains(name, "/library") {
			out = append(out, relative(name))
		}
	}
	slices.SortFunc(out, compareDirectories)
	return slices.Compact(out), nil
}

func relative(name string) string { return strings.TrimPrefix(path.Clean("."+name), "./") }

// compareDirectories sorts directories inside before those outside, and deeper
// ones, whose names contain a version, before others.
func compareDirectories(a, b string) int {
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
