package deb

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a package version in Debian's format: upstream version and revision
// (https://www.debian.org/doc/debian-policy/ch-controlfields.html#version).
type Version struct {
	// Core is MAJOR.MINOR.PATCH.
	Core string
	// Prerelease is the pre-release part, without the leading "~".
	Prerelease string
	// Metadata is the build metadata, without the leading "+".
	Metadata string
	// Revision is the Debian revision.
	Revision string
}

// ParseVersion parses a Semantic Version. An empty revision means "1".
//
// It accepts only versions that sort in dpkg as they do in Go, so that apt upgrades
// wherever Go does. Pre-releases are the difficult part: Go compares "beta2" and
// "beta10" as text and dpkg by number, dpkg sorts "beta+llama" after "betas", and a
// hyphen separates the revision. A pre-release therefore consists of numbers and
// the words in prereleaseWords, separated by dots. No word is a prefix of another,
// so two different words differ in a letter, which both compare by its code.
func ParseVersion(version, revision string) (Version, error) {
	sv, err := semver.StrictNewVersion(strings.TrimPrefix(version, "v"))
	if err != nil {
		return Version{}, fmt.Errorf("%w: version %q: %w: use MAJOR.MINOR.PATCH, such as 0.2.0 or 0.2.0-rc.1", ErrOptions, version, err)
	}
	if revision == "" {
		revision = "1"
	}
	if !validRevision.MatchString(revision) {
		return Version{}, fmt.Errorf("%w: revision %q: use only letters, digits and . + ~", ErrOptions, revision)
	}
	for id := range strings.SplitSeq(sv.Prerelease(), ".") {
		if id != "" && !isNumber(id) && !slices.Contains(prereleaseWords(), id) {
			return Version{}, fmt.Errorf("%w: version %q: apt and Go would sort pre-releases with %q differently: use only numbers and %s, separated by dots, such as 0.2.0-rc.1",
				ErrOptions, version, id, strings.Join(prereleaseWords(), ", "))
		}
	}
	return Version{
		Core:       fmt.Sprintf("%d.%d.%d", sv.Major(), sv.Minor(), sv.Patch()),
		Prerelease: sv.Prerelease(),
		// The last hyphen of a Debian version separates the revision.
		Metadata: strings.ReplaceAll(sv.Metadata(), "-", "."),
		Revision: revision,
	}, nil
}

// llamaVersion returns a llama.cpp release as a version that dpkg can compare.
func llamaVersion(tag string) (string, error) {
	v, err := ParseVersion(tag, "")
	if err != nil {
		return "", fmt.Errorf("llama.cpp release: %w", err)
	}
	return v.Upstream(), nil
}

var validRevision = regexp.MustCompile(`^[A-Za-z0-9.+~]+$`)

// prereleaseWords returns the words of pre-releases, none a prefix of another.
func prereleaseWords() []string { return []string{"alpha", "beta", "dev", "pre", "rc"} }

func isNumber(s string) bool { return strings.Trim(s, "0123456789") == "" }

// Upstream returns the version without the revision.
func (v Version) Upstream() string {
	s := v.Core
	if v.Prerelease != "" {
		s += "~" + v.Prerelease
	}
	if v.Metadata != "" {
		s += "+" + v.Metadata
	}
	return s
}

// String returns the complete version, as dpkg prints it and file names contain it.
func (v Version) String() string { return v.Upstream() + "-" + v.Revision }

// SemVerFromDebian converts a version as dpkg prints it back to the version and
// revision for Options. ok is false if this package did not create the version.
func SemVerFromDebian(debian string) (version, revision string, ok bool) {
	i := strings.LastIndexByte(debian, '-')
	if i < 0 {
		return "", "", false
	}
	version, revision = strings.Replace(debian[:i], "~", "-", 1), debian[i+1:]
	v, err := ParseVersion(version, revision)
	return version, revision, err == nil && v.String() == debian
}

// CompareVersions compares versions as dpkg does. The result is negative if a is
// earlier than b
// (https://www.debian.org/doc/debian-policy/ch-controlfields.html#version).
func CompareVersions(a, b string) int {
	epochA, restA := cutEpoch(a)
	epochB, restB := cutEpoch(b)
	upA, revA := cutRevision(restA)
	upB, revB := cutRevision(restB)
	return cmp.Or(comparePart(epochA, epochB), comparePart(upA, upB), comparePart(revA, revB))
}

func cutEpoch(v string) (epoch, rest string) {
	if epoch, rest, ok := strings.Cut(v, ":"); ok {
		return epoch, rest
	}
	return "", v
}

func cutRevision(v string) (upstream, revision string) {
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return v[:i], v[i+1:]
	}
	return v, ""
}

// comparePart compares alternately the leading non-digits, in Debian's order, and
// the leading digits, as numbers.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		textA, textB := leading(a, isText), leading(b, isText)
		if c := compareText(textA, textB); c != 0 {
			return c
		}
		a, b = a[len(textA):], b[len(textB):]
		numA, numB := leading(a, isDigit), leading(b, isDigit)
		a, b = a[len(numA):], b[len(numB):]
		numA, numB = strings.TrimLeft(numA, "0"), strings.TrimLeft(numB, "0")
		if c := cmp.Or(cmp.Compare(len(numA), len(numB)), strings.Compare(numA, numB)); c != 0 {
			return c
		}
	}
	return 0
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isText(c byte) bool { return !isDigit(c) }

func leading(s string, of func(byte) bool) string {
	n := 0
	for n < len(s) && of(s[n]) {
		n++
	}
	return s[:n]
}

// compareText sorts letters before other characters, and the end of the text before
// everything except a tilde.
func compareText(a, b string) int {
	for i := range max(len(a), len(b)) {
		if c := cmp.Compare(rank(a, i), rank(b, i)); c != 0 {
			return c
		}
	}
	return 0
}

func rank(s string, i int) int {
	switch {
	case i >= len(s):
		return 0
	case s[i] == '~':
		return -1
	case 'a' <= s[i]|0x20 && s[i]|0x20 <= 'z':
		return int(s[i])
	}
	return int(s[i]) + 256
}
