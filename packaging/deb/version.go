package deb

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"
)

// Version is a package version in Debian's order: upstream part and revision
// (https://www.debian.org/doc/debian-policy/ch-controlfields.html#version).
type Version struct {
	// Core is MAJOR.MINOR.PATCH.
	Core string
	// Prerelease is what comes before the release, without its mark.
	Prerelease string
	// Metadata is the build metadata, without its mark.
	Metadata string
	// Revision is the Debian revision.
	Revision string
}

// ParseVersion takes a Semantic Version apart. An empty revision means "1".
func ParseVersion(version, revision string) (Version, error) {
	sv, err := semver.StrictNewVersion(strings.TrimPrefix(version, "v"))
	if err != nil {
		return Version{}, fmt.Errorf("%w: version %q: %w: give MAJOR.MINOR.PATCH, as in 0.2.0 or 0.2.0-rc.1", ErrOptions, version, err)
	}
	if revision == "" {
		revision = "1"
	}
	if !revisionForm.MatchString(revision) {
		return Version{}, fmt.Errorf("%w: revision %q: give letters, digits and . + ~", ErrOptions, revision)
	}
	return Version{
		Core:       fmt.Sprintf("%d.%d.%d", sv.Major(), sv.Minor(), sv.Patch()),
		Prerelease: debianPart(sv.Prerelease()),
		Metadata:   debianPart(sv.Metadata()),
		Revision:   revision,
	}, nil
}

// llamaVersion is a llama.cpp release as a version that dpkg compares.
func llamaVersion(tag string) (string, error) {
	v, err := ParseVersion(tag, "")
	if err != nil {
		return "", fmt.Errorf("llama.cpp's release: %w", err)
	}
	return v.Upstream(), nil
}

var revisionForm = regexp.MustCompile(`^[A-Za-z0-9.+~]+$`)

// debianPart keeps the hyphen for the revision: Debian reads the last hyphen as
// where the revision begins, and "." sorts where "-" did.
func debianPart(s string) string { return strings.ReplaceAll(s, "-", ".") }

// Upstream is the version without the revision.
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

// String is the whole version, as dpkg shows it and file names carry it.
func (v Version) String() string { return v.Upstream() + "-" + v.Revision }

// SemVerFromDebian takes a version as dpkg shows it back to what Options ask for. It is not
// ok for one that this package did not make.
func SemVerFromDebian(debian string) (version, revision string, ok bool) {
	i := strings.LastIndexByte(debian, '-')
	if i < 0 {
		return "", "", false
	}
	version, revision = strings.Replace(debian[:i], "~", "-", 1), debian[i+1:]
	v, err := ParseVersion(version, revision)
	return version, revision, err == nil && v.String() == debian
}

// CompareVersions orders versions as dpkg does: below zero when a is the earlier
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

// comparePart compares by turns what is no digit, as text of Debian's order, and
// what is, as a number.
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

// compareText orders letters before other signs, and the end of the text before
// everything but a tilde.
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
