package elfdep

import (
	"cmp"
	"debug/elf"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// VersionError names a symbol version that a library of the closure lacks, so that the loader
// does not start the program.
type VersionError struct {
	Version  string // such as "GLIBC_2.43"
	Library  string // SONAME of the library that should define it
	Path     string // where that library was found
	NeededBy string // SONAME of the file that needs it
}

// Error implements error.
func (e *VersionError) Error() string {
	return fmt.Sprintf("%s needs version %s of %s, which %s does not define; use a newer one, or build against an older one",
		e.NeededBy, e.Version, e.Library, e.Path)
}

// checkVersions compares every version need with the library of that name. A library that defines no versions at all satisfies everything, as
// it does for the loader.
func (w *walker) checkVersions() []error {
	var errs []error
	for _, n := range w.order {
		for _, v := range n.lib.Versions {
			lib := w.byName[v.Library]
			if lib == nil || len(lib.obj.defs) == 0 {
				continue
			}
			for _, name := range v.Versions {
				if !slices.Contains(lib.obj.defs, name) {
					errs = append(errs, &VersionError{Version: name, Library: v.Library, Path: lib.where(), NeededBy: n.lib.SONAME})
				}
			}
		}
	}
	return errs
}

// CompareVersions orders symbol versions such as GLIBC_2.4 and GLIBC_2.34 by
// their numbers, and different prefixes by name.
func CompareVersions(a, b string) int {
	pa, na, _ := strings.Cut(a, "_")
	pb, nb, _ := strings.Cut(b, "_")
	if c := strings.Compare(pa, pb); c != 0 {
		return c
	}
	as, bs := strings.Split(na, "."), strings.Split(nb, ".")
	for i := range min(len(as), len(bs)) {
		x, errX := strconv.ParseUint(as[i], 10, 32)
		y, errY := strconv.ParseUint(bs[i], 10, 32)
		c := cmp.Compare(x, y)
		if errX != nil || errY != nil {
			c = strings.Compare(as[i], bs[i])
		}
		if c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}

// Defines returns the symbol versions that the library at path defines, as it
// lists them; its own name, which glibc's linker puts first, is left out.
func Defines(path string) ([]string, error) {
	var out []string
	err := WithFile(path, func(f *elf.File, _ *os.File) error {
		o, err := readObject(f)
		if err != nil {
			return err
		}
		out = slices.DeleteFunc(o.defs, func(v string) bool { return v == o.soname })
		return nil
	})
	return out, err
}

// SplitVersion parts a symbol version such as "GLIBC_2.43" into its kind and
// its number. ok is false for those without a number, such as "GLIBC_PRIVATE"
// or "GLIBC_ABI_DT_RELR".
func SplitVersion(v string) (kind, number string, ok bool) {
	kind, number, found := strings.Cut(v, "_")
	if !found || kind == "" || number == "" || number[0] < '0' || number[0] > '9' {
		return "", "", false
	}
	return kind, number, true
}
