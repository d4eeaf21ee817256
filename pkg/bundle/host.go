package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// validateHost checks what a bundle of the system flavour asks of its host: the
// libraries must be named by its files and be none of them.
func (m *Manifest) validateHost() error {
	if m.Host == nil {
		return nil
	}
	if m.Flavour != FlavourSystem {
		return fmt.Errorf("host: a bundle of flavour %s takes nothing from it", m.Flavour)
	}
	h := m.Host
	if h.ROCm == "" || strings.Trim(h.ROCm, "0123456789.") != "" {
		return fmt.Errorf("host rocm %q: want a version such as 6.4.3", h.ROCm)
	}
	if len(h.Libraries) == 0 {
		return errors.New("host libraries: a bundle that takes none is hermetic")
	}
	for i, l := range h.Libraries {
		if err := m.validateHostLibrary(l); err != nil {
			return fmt.Errorf("host library %q: %w", l.SONAME, err)
		}
		if i > 0 && h.Libraries[i-1].SONAME >= l.SONAME {
			return fmt.Errorf("host library %q: want each once, sorted", l.SONAME)
		}
	}
	for i, v := range h.Provides {
		kind, number, ok := strings.Cut(v, "_")
		if !ok || kind == "" || number == "" || !printable(v) {
			return fmt.Errorf("host provides %q: want a symbol version such as GLIBC_2.43", v)
		}
		if i > 0 && h.Provides[i-1] >= v {
			return fmt.Errorf("host provides %q: want each once, sorted", v)
		}
	}
	return nil
}

func (m *Manifest) validateHostLibrary(l HostLibrary) error {
	if l.SONAME == "" || strings.Contains(l.SONAME, "/") || !printable(l.SONAME+l.Debian+l.AMD) {
		return errors.New("bad name")
	}
	if _, ok := m.File(l.SONAME); ok {
		return errors.New("it is in the bundle")
	}
	for i, v := range l.Versions {
		if v == "" || !printable(v) || (i > 0 && l.Versions[i-1] >= v) {
			return fmt.Errorf("symbol version %q: want each once, sorted", v)
		}
	}
	if len(l.NeededBy) == 0 {
		return errors.New("nothing in the bundle needs it")
	}
	for _, by := range l.NeededBy {
		f, ok := m.File(by)
		if !ok || !slices.Contains(f.Needed, l.SONAME) {
			return fmt.Errorf("%q is no file that needs it", by)
		}
	}
	return nil
}
