// Package llvm links a small libLLVM for a bundle and proves that it is equivalent to the full one.
//
// Debian's comgr, the compiler library of the HIP runtime, takes its code generator from libLLVM.
// That library contains every target, Polly, a JIT and much more, and is the only one that needs Z3.
// [Builder.Link] links a libLLVM that exports the symbols that the bundle imports, from the static
// libraries of the same build as the full one. [Builder.Prove] runs comgr with both and compares the
// results byte by byte.
//
// A comgr that contains LLVM, such as AMD's, does not need this.
package llvm

import (
	_ "embed" // the scripts and sources are part of the program
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

var (
	//go:embed scripts/link.sh
	linkScript string
	//go:embed scripts/stubs.cpp
	stubs string
	//go:embed scripts/probe.c
	probeSource string
	//go:embed scripts/prove.sh
	probeScript string
	//go:embed scripts/kernels.cl
	probeKernels string
)

// keptTargets are the targets that remain, as in AMD's own builds of comgr.
var keptTargets = []string{"AMDGPU", "X86"}

var soname = regexp.MustCompile(`^libLLVM\.so\.[0-9.]+$`)

// IsLibrary reports whether a SONAME is that of libLLVM.
func IsLibrary(name string) bool { return soname.MatchString(name) }

// Plan describes how a bundle trims libLLVM. Its JSON form is part of the bundle's stage key.
type Plan struct {
	LLVM          toolchain.LLVM
	Targets       []string
	Script, Stubs string
	Proof         []string // sources and script of the proof
}

// NewPlan returns the plan for a toolchain with these packages, or nil if none of them is a libLLVM.
func NewPlan(pkgs []toolchain.Package) (*Plan, error) {
	l, ok, err := toolchain.FindLLVM(pkgs)
	if err != nil || !ok {
		return nil, err
	}
	return &Plan{
		LLVM: l, Targets: keptTargets, Script: linkScript, Stubs: stubs,
		Proof: []string{probeSource, probeScript, probeKernels},
	}, nil
}

// Error reports that the small libLLVM could not be linked.
type Error struct {
	LLVM toolchain.LLVM
	Err  error
}

// Error names the package with the static libraries and the cause.
func (e *Error) Error() string {
	return fmt.Sprintf("link a small libLLVM of %s %s: %v", e.LLVM.Development.Name, e.LLVM.Development.Version, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AllowsWhole reports whether a bundle may ship the whole libLLVM instead. A locked build may
// not. Another build may if the package is not the locked one, or if the archive no longer has
// the locked one, which is known to link.
func (e *Error) AllowsWhole(lockedBuild bool) bool {
	var dropped *toolchain.NotInArchiveError
	return !lockedBuild && (!e.LLVM.Locked || errors.As(e.Err, &dropped))
}

// wholePrefix begins the deviation of a bundle with the full libLLVM.
const wholePrefix = "libLLVM is the whole one of "

// Deviation returns the sentence about the whole libLLVM for the bundle's
// manifest.
func (e *Error) Deviation() string {
	return fmt.Sprintf(wholePrefix+"%s %s, since none could be linked of %s", e.LLVM.Runtime.Name, e.LLVM.Runtime.Version, e.LLVM.Development.Name)
}

// IsWhole reports whether a bundle has the whole libLLVM because none could be
// linked for it. The recorded sizes do not apply to such a bundle.
func IsWhole(m *bundle.Manifest) bool {
	return slices.ContainsFunc(m.Toolchain.Deviations, func(d string) bool { return strings.HasPrefix(d, wholePrefix) })
}

// Builder links and proves libraries in the image of a toolchain.
type Builder struct {
	Engine    engine.Engine
	Cache     *stage.Cache
	Spec      toolchain.Spec
	Toolchain *toolchain.Toolchain
	Time      time.Time // of everything that goes into a container
	Memory    int64     // bytes, 0: no limit
	Log       io.Writer
	// OpenLog opens the log of a long step.
	OpenLog func(step string) (io.WriteCloser, error)
}

// environment returns the whole environment of a job.
func environment() []string {
	return []string{"PATH=/usr/bin:/bin", "HOME=/build", "LC_ALL=C.UTF-8", "TZ=UTC"}
}
