package hostrocm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// ErrUnusable means that the host has no ROCm installation that the bundle can use.
var ErrUnusable = errors.New("the host's ROCm cannot be used")

// MissingLibrary is a library that was not found.
type MissingLibrary struct {
	SONAME   string
	NeededBy string // a file of the bundle, or the path of a library of the host
	// Found lists files of other versions of the library.
	Found []string
	// Debian and AMD are the packages that contain it, empty if unknown.
	Debian, AMD string
}

// Error describes why the host's ROCm cannot be used. It matches ErrUnusable.
type Error struct {
	// ROCm is the release that the bundle was built with. Location is the installation
	// that comes closest to the bundle's needs.
	ROCm, Location string
	Missing        []MissingLibrary
	// Broken lists what else prevents the libraries from loading.
	Broken []string
	// Notes lists what the search skipped.
	Notes []string
}

// Is reports whether target is ErrUnusable.
func (e *Error) Is(target error) bool { return target == ErrUnusable }

// Error returns the detail and the remedy.
func (e *Error) Error() string { return e.Detail() + "; " + e.Remedy() }

// Detail returns what is wrong.
func (e *Error) Detail() string {
	var parts []string
	other := false
	for _, m := range e.Missing {
		text := m.SONAME + ", needed by " + m.NeededBy + ", is missing"
		if len(m.Found) > 0 {
			text += " (found " + strings.Join(m.Found, ", ") + ")"
			other = true
		}
		parts = append(parts, text)
	}
	if other {
		parts = append(parts, "this bundle was built for ROCm "+release(e.ROCm)+", and other releases have other interfaces")
	}
	parts = append(parts, e.Broken...)
	parts = append(parts, e.Notes...)
	where := ""
	if e.Location != systemLocation {
		where = " in " + e.Location
	}
	return ErrUnusable.Error() + where + ": " + strings.Join(parts, "; ")
}

// release returns 6.x for 6.4.3: the first number identifies the interfaces.
func release(rocm string) string {
	major, _, _ := strings.Cut(rocm, ".")
	return major + ".x"
}

// Remedy returns what to do.
func (e *Error) Remedy() string {
	var debian, amd, unknown []string
	add := func(list *[]string, name string) {
		if name != "" && !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	for _, m := range e.Missing {
		if m.Debian == "" && m.AMD == "" {
			add(&unknown, m.SONAME)
			continue
		}
		add(&debian, m.Debian)
		add(&amd, m.AMD)
	}
	var do []string
	if len(debian) > 0 {
		do = append(do, "apt-get install "+strings.Join(debian, " ")+" (Debian, Ubuntu)")
	}
	if len(amd) > 0 {
		do = append(do, fmt.Sprintf("apt-get install %s of ROCm %s (AMD's repository)", strings.Join(amd, " "), release(e.ROCm)))
	}
	if len(unknown) > 0 {
		do = append(do, "install the packages that contain "+strings.Join(unknown, ", ")+" (apt-file search finds them)")
	}
	return strings.Join(append(do, "use a hermetic bundle, which contains its own"), ", or ")
}

// MissingKernels returns a message that the host's rocBLAS has no kernels for
// targets, empty for no targets. rocBLAS aborts the process on a GPU without kernels.
func (h *Installation) MissingKernels(targets []gfx.Target) string {
	if len(targets) == 0 {
		return ""
	}
	have := "no kernels beside it"
	if h.KernelDir != "" {
		have = fmt.Sprintf("%s has those for %s", h.KernelDir, gfx.Join(h.KernelTargets, ", "))
	}
	return fmt.Sprintf("the host's rocBLAS has no kernels for %s (%s); install a rocBLAS that has them, or use a hermetic bundle", gfx.Join(targets, ", "), have)
}
