package toolchain

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"slices"
)

// LLVMLockName is the file of this directory that locks the package with the static libraries
// of libLLVM. No image contains that package, so that the compile image remains the same.
const LLVMLockName = "debian-llvm.lock"

// runtimeName matches Debian's and Ubuntu's packages of libLLVM, t64 being
// those of the move to 64-bit time.
var runtimeName = regexp.MustCompile(`^libllvm([0-9]+)(t64)?$`)

// LLVM is a libLLVM of a toolchain, and the package with the static libraries of the same
// build.
type LLVM struct {
	Runtime, Development Package
	Major                string // such as "21"; programs and directories are named by it
	Locked               bool   // Development is the locked one
}

// FindLLVM returns the libLLVM of a toolchain; ok is false if none of its packages is one. If
// there are several, it returns the newest, since ROCm's packages depend on that. Debian builds
// both packages from one source in one build, so their versions are the same.
func FindLLVM(pkgs []Package) (l LLVM, ok bool, err error) {
	for _, p := range pkgs {
		m := runtimeName.FindStringSubmatch(p.Name)
		if m == nil || (ok && compareNumbers(m[1], l.Major) < 0) {
			continue
		}
		l.Runtime, l.Major, ok = p, m[1], true
	}
	if !ok {
		return LLVM{}, false, nil
	}
	l.Development = Package{Name: "llvm-" + l.Major + "-dev", Version: l.Runtime.Version, Arch: l.Runtime.Arch}
	b, err := locks.ReadFile(LLVMLockName)
	if err != nil {
		return LLVM{}, false, fmt.Errorf("read the lock of libLLVM's object files: %w", err)
	}
	_, locked, err := parseLock(bytes.NewReader(b))
	if err != nil {
		return LLVM{}, false, fmt.Errorf("%s: %w", LLVMLockName, err)
	}
	i := slices.IndexFunc(locked, func(p Package) bool {
		return p.Name == l.Development.Name && p.Version == l.Development.Version && p.Arch == l.Development.Arch
	})
	if i >= 0 {
		l.Development, l.Locked = locked[i], true
	}
	return l, true, nil
}

// FormatLLVMLock writes the lock of that package.
func FormatLLVMLock(w io.Writer, p Package) error {
	if _, err := fmt.Fprintln(w, "# The package with the object files of the hip set's libLLVM: name, version, architecture, SHA-256 of the package."); err != nil {
		return err
	}
	return FormatLock(w, []Package{p})
}

// compareNumbers compares decimal numbers without leading zeros.
func compareNumbers(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return bytes.Compare([]byte(a), []byte(b))
}
