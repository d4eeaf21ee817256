package hostrocm

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// ErrUnusable means that the host has no ROCm that the bundle can use.
var ErrUnusable = errors.New("the host's ROCm cannot be used")

// Missing is a library that is not there.
type MissingLibrary struct {
	SONAME   string
	NeededBy string // a file of the bundle, or the path of a library of the host
	// Found are files of other versions of it.
	Found []string
	// Debian and AMD name the packages that hold it, empty where not known.
	Debian, AMD string
}

// Error says why the host's ROCm cannot be used. It is errors.Is ErrUnusable.
type Error struct {
	// ROCm is the release that the bundle was built with, Place the installation
	// that comes closest to what it needs.
	ROCm, Location string
	Missing        []MissingLibrary
	// Broken says what else keeps the libraries from loading.
	Broken []string
	// Notes are what was passed over on the way.
	Notes []string
}

// Is makes it ErrUnusable.
func (e *Error) Is(target error) bool { return target == ErrUnusable }

// Error is the detail and the remedy.
func (e *Error) Error() string { return e.Detail() + "; " + e.Remedy() }

// Detail says what is wrong.
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
	if e.Location != system {
		where = " in " + e.Location
	}
	return ErrUnusable.Error() + where + ": " + strings.Join(parts, "; ")
}

// release writes 6.4.3 as 6.x: the first number is what interfaces go by.
func release(rocm string) string {
	major, _, _ := strings.Cut(rocm, ".")
	return major + ".x"
}

// Remedy says what to do.
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
		do = append(do, "install the packages that hold "+strings.Join(unknown, ", ")+" (apt-file search finds them)")
	}
	return strings.Join(append(do, "use a hermetic bundle, which brings its own"), ", or ")
}

// Lacks says that the host's rocBLAS has no kernels for targets, empty for no
// targets. rocBLAS ends the process on a GPU that it has none for.
func (h *Installation) MissingKernels(targets []gfx.Target) string {
	if len(targets) == 0 {
		return ""
	}
	have := "no kernels beside it"
	if h.KernelDir != "" {
		have = fmt.Sprintf("in %s are those for %s", h.KernelDir, gfx.Join(h.KernelTargets, ", "))
	}
	return fmt.Sprintf("the host's rocBLAS has no kernels for %s (%s); install a rocBLAS that has them, or use a hermetic bundle", gfx.Join(targets, ", "), have)
}
