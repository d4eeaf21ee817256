package gfx

import (
	"fmt"
	"strings"
)

// Mode is how code was compiled with regard to an optional hardware feature.
type Mode uint8

const (
	// Any is code that runs whether the feature is on or off, or that is
	// built for a processor without the feature.
	Any Mode = iota
	// Off is code that needs the feature off ("xnack-").
	Off
	// On is code that needs the feature on ("xnack+").
	On
)

func (m Mode) suffix(name string) string {
	switch m {
	case Off:
		return ":" + name + "-"
	case On:
		return ":" + name + "+"
	default:
		return ""
	}
}

// ID is a target id in the compiler's sense: a processor and the modes of its
// optional features, for example "gfx90a:sramecc+:xnack-".
type ID struct {
	Target  Target
	SRAMECC Mode // error correction of on-chip memory
	XNACK   Mode // page-fault replay
}

// String returns the canonical spelling, features in alphabetical order.
func (id ID) String() string {
	return string(id.Target) + id.SRAMECC.suffix("sramecc") + id.XNACK.suffix("xnack")
}

// ParseID parses a target id. Features may come in any order, each at most once.
func ParseID(s string) (ID, error) {
	name, features, _ := strings.Cut(s, ":")
	t, err := Parse(name)
	if err != nil {
		return ID{}, err
	}
	id := ID{Target: t}
	if features == "" {
		if strings.HasSuffix(s, ":") {
			return ID{}, &ParseError{Kind: "target id", Text: s, Why: "a colon with no feature after it"}
		}
		return id, nil
	}
	for f := range strings.SplitSeq(features, ":") {
		if err := id.setFeature(s, f); err != nil {
			return ID{}, err
		}
	}
	return id, nil
}

func (id *ID) setFeature(whole, f string) error {
	bad := func(why string) error { return &ParseError{Kind: "target id", Text: whole, Why: why} }
	var mode Mode
	switch {
	case strings.HasSuffix(f, "+"):
		mode = On
	case strings.HasSuffix(f, "-"):
		mode = Off
	default:
		return bad(fmt.Sprintf("feature %q ends in neither + nor -", f))
	}
	var field *Mode
	switch f[:len(f)-1] {
	case "xnack":
		field = &id.XNACK
	case "sramecc":
		field = &id.SRAMECC
	default:
		return bad(fmt.Sprintf("unknown feature %q", f))
	}
	if *field != Any {
		return bad(fmt.Sprintf("feature %q appears twice", f))
	}
	*field = mode
	return nil
}

// BundleID is the id of one entry of a clang offload bundle.
type BundleID struct {
	Kind   string // "host", "hip", "hipv4", "openmp"
	Triple string // such as "amdgcn-amd-amdhsa-"
	ID     ID     // zero for the host's entry
}

// Host reports whether the entry is for the CPU that runs the program. Its
// content is empty in HIP's fat binaries.
func (b BundleID) Host() bool { return b.Kind == "host" }

// String returns the id in the format that ParseBundleID parses.
func (b BundleID) String() string {
	if b.Host() && b.ID == (ID{}) {
		return b.Kind + "-" + b.Triple
	}
	return b.Kind + "-" + b.Triple + "-" + b.ID.String()
}

// ParseBundleID parses an entry id of clang-offload-bundler: the
// offload kind, a target triple of four fields (the last mostly empty) and,
// for a device, a target id:
//
//	hipv4-amdgcn-amd-amdhsa--gfx1100
//	hipv4-amdgcn-amd-amdhsa--gfx90a:sramecc+:xnack-
//	host-x86_64-unknown-linux--
//
// The format is described in LLVM's documentation of clang-offload-bundler.
func ParseBundleID(s string) (BundleID, error) {
	bad := func(why string) (BundleID, error) {
		return BundleID{}, &ParseError{Kind: "bundle id", Text: s, Why: why}
	}
	kind, rest, ok := strings.Cut(s, "-")
	if !ok || kind == "" || rest == "" {
		return bad("want KIND-TRIPLE-TARGET")
	}
	switch kind {
	case "host":
		return BundleID{Kind: kind, Triple: rest}, nil
	case "hip", "hipv4", "openmp":
	default:
		return bad(fmt.Sprintf("unknown offload kind %q", kind))
	}
	i := strings.LastIndex(rest, "-gfx")
	if i <= 0 {
		return bad("has no gfx processor")
	}
	id, err := ParseID(rest[i+1:])
	if err != nil {
		return BundleID{}, fmt.Errorf("bundle id %q: %w", s, err)
	}
	return BundleID{Kind: kind, Triple: rest[:i], ID: id}, nil
}
