package deb

import (
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
