// Package gfx names AMD GPU targets and converts between their spellings.
//
// One target has at least five spellings: the compiler's processor name
// ("gfx1100"), the kernel driver's gfx_target_version (110000), the value of
// HSA_OVERRIDE_GFX_VERSION ("11.0.0"), the entry id of a clang offload bundle
// ("hipv4-amdgcn-amd-amdhsa--gfx1100") and the machine number in the e_flags
// of an AMDGPU code object (0x41). All code of this module compares
// targets with this one type, so that a bundle, a device and a file cannot
// disagree over spelling.
//
// The package reads neither devices (see runtime/gpu) nor files (see pkg/elfdep
// and pkg/offload).
package gfx

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Target is the canonical processor name, such as "gfx1100", "gfx90a" or
// "gfx11-generic". The empty Target means "no target". Untrusted values must go
// through Parse or UnmarshalText.
type Target string

// The targets that this module builds for by default (RDNA 3 desktop cards).
const (
	// GFX1100 is Navi 31: RX 7900 XTX, XT, GRE; PRO W7800, W7900.
	GFX1100 Target = "gfx1100"
	// GFX1101 is Navi 32: RX 7800 XT, RX 7700 XT; PRO W7700.
	GFX1101 Target = "gfx1101"
)

// ErrNoGPU means that a kernel topology node is not a GPU: its gfx_target_version
// is 0, as for CPU nodes.
var ErrNoGPU = errors.New("node has no GPU target (gfx_target_version 0)")

// ParseError is a name that does not have the expected format.
type ParseError struct {
	Kind string // the expected format: "target", "bundle id", ...
	Text string // the input
	Why  string
}

// Error implements error.
func (e *ParseError) Error() string {
	return fmt.Sprintf("invalid GPU %s %q: %s", e.Kind, e.Text, e.Why)
}

// Parse parses a processor name in the compiler's spelling. It accepts every
// well-formed name, including processors that this package does not know, because
// new ones follow the same scheme: decimal major version, one hexadecimal digit
// of minor version, one of stepping.
func Parse(s string) (Target, error) {
	fail := func(why string) (Target, error) {
		return "", &ParseError{Kind: "target", Text: s, Why: why}
	}
	rest, ok := strings.CutPrefix(s, "gfx")
	if !ok {
		return fail(`want a name like "gfx1100"`)
	}
	if version, ok := strings.CutSuffix(rest, "-generic"); ok {
		for part := range strings.SplitSeq(version, "-") {
			if n, err := strconv.ParseUint(part, 10, 8); err != nil || strconv.FormatUint(n, 10) != part {
				return fail(`want a generic name like "gfx11-generic" or "gfx9-4-generic"`)
			}
		}
		return Target(s), nil
	}
	if len(rest) < 3 || len(rest) > 4 {
		return fail("want three or four digits after gfx")
	}
	major, last := rest[:len(rest)-2], rest[len(rest)-2:]
	if n, err := strconv.ParseUint(major, 10, 8); err != nil || n == 0 || major[0] == '0' {
		return fail("the major version is not a decimal number")
	}
	if hexDigit(last[0]) < 0 || hexDigit(last[1]) < 0 {
		return fail("minor version and stepping must be one lower-case hexadecimal digit each")
	}
	return Target(s), nil
}

// MustParse is Parse for constants and tests; it panics on a malformed name.
func MustParse(s string) Target {
	t, err := Parse(s)
	if err != nil {
		panic(err)
	}
	return t
}

// ParseList parses names separated by commas, semicolons or white space, as CMake
// and shells pass them. The result is sorted and has no duplicates.
func ParseList(s string) ([]Target, error) {
	var out []Target
	for _, f := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(",; \t\n", r) }) {
		t, err := Parse(f)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	Sort(out)
	return slices.Compact(out), nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

// FromKFD converts gfx_target_version of
// /sys/class/kfd/kfd/topology/nodes/*/properties, which the amdgpu driver computes
// as major*10000 + minor*100 + stepping. For 0, a CPU node, it returns ErrNoGPU.
func FromKFD(version uint32) (Target, error) {
	if version == 0 {
		return "", ErrNoGPU
	}
	major, minor, step := version/10000, version/100%100, version%100
	if major == 0 || major > 99 || minor > 15 || step > 15 {
		return "", &ParseError{
			Kind: "target version", Text: strconv.FormatUint(uint64(version), 10),
			Why: "want major*10000 + minor*100 + stepping, as in 110000",
		}
	}
	return Target(fmt.Sprintf("gfx%d%x%x", major, minor, step)), nil
}

// Version splits the name into its three numbers. ok is false for a generic,
// empty or malformed target.
func (t Target) Version() (major, minor, stepping uint32, ok bool) {
	if t.Generic() {
		return 0, 0, 0, false
	}
	if _, err := Parse(string(t)); err != nil {
		return 0, 0, 0, false
	}
	digits := string(t[len("gfx"):])
	n, err := strconv.ParseUint(digits[:len(digits)-2], 10, 8)
	if err != nil {
		return 0, 0, 0, false
	}
	minor, stepping = uint32(hexDigit(digits[len(digits)-2])), uint32(hexDigit(digits[len(digits)-1])) //nolint:gosec // Parse allowed hexadecimal digits only
	return uint32(n), minor, stepping, true
}

// KFD returns the kernel driver's number of the target, or 0 for a generic or
// empty target.
func (t Target) KFD() uint32 {
	major, minor, step, ok := t.Version()
	if !ok {
		return 0
	}
	return major*10000 + minor*100 + step
}

// Generic reports whether the target stands for a group of processors.
func (t Target) Generic() bool { return strings.HasSuffix(string(t), "-generic") }

// String returns the processor name.
func (t Target) String() string { return string(t) }

// MarshalText implements encoding.TextMarshaler. It rejects a malformed name, so
// that none gets into a manifest. The empty target is written as "".
func (t Target) MarshalText() ([]byte, error) {
	if t != "" {
		if _, err := Parse(string(t)); err != nil {
			return nil, err
		}
	}
	return []byte(t), nil
}

// UnmarshalText implements encoding.TextUnmarshaler; "" is the empty target.
func (t *Target) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*t = ""
		return nil
	}
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*t = p
	return nil
}

// Compare orders targets by version, so that gfx906 comes before gfx1030;
// names without a version come last, by name.
func Compare(a, b Target) int {
	ka, kb := a.KFD(), b.KFD()
	switch {
	case ka == kb:
		return strings.Compare(string(a), string(b))
	case ka == 0:
		return 1
	case kb == 0:
		return -1
	case ka < kb:
		return -1
	}
	return 1
}

// Sort orders targets in place as Compare does.
func Sort(ts []Target) { slices.SortFunc(ts, Compare) }

// Join joins target names with sep.
func Join(ts []Target, sep string) string {
	names := make([]string, len(ts))
	for i, t := range ts {
		names[i] = string(t)
	}
	return strings.Join(names, sep)
}
