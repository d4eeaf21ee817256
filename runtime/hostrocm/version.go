package hostrocm

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// versionLine matches the first line of ROCm's version file: the release, and the
// build number after a dash.
const versionLine = `^([0-9]+(?:\.[0-9]+)*)(?:[-.+~][0-9A-Za-z.+~-]*)?$`

// ParseVersion parses .info/version of a ROCm directory, such as "6.4.1-83", and
// returns the release, "6.4.1".
func ParseVersion(b []byte) (string, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	text := strings.TrimSpace(string(line))
	m := regexp.MustCompile(versionLine).FindStringSubmatch(text)
	if m == nil || len(text) > 64 {
		return "", fmt.Errorf("%.64q is not a ROCm version such as 6.4.1-83", text)
	}
	return m[1], nil
}

// compareVersions compares dotted numbers. A part that is not a number counts as 0.
func compareVersions(a, b string) int {
	split := func(s string) []string {
		return strings.FieldsFunc(s, func(r rune) bool { return r == '.' || r == '-' })
	}
	as, bs := split(a), split(b)
	for i := range max(len(as), len(bs)) {
		if c := cmp.Compare(number(as, i), number(bs, i)); c != 0 {
			return c
		}
	}
	return 0
}

func number(parts []string, i int) uint64 {
	if i >= len(parts) {
		return 0
	}
	n, err := strconv.ParseUint(parts[i], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// undefinedVersions returns the symbol versions that the bundle's files need from a
// library of the host and that it does not define. The loader accepts a library
// without versions for all of them.
func (s *finder) undefinedVersions(file string, l bundle.HostLibrary) []string {
	_, host, err := elfdep.Resolve(s.fs.root, file)
	if err != nil {
		return nil // the closure reports it
	}
	defined, err := elfdep.Defines(host)
	if err != nil || len(defined) == 0 {
		return nil
	}
	for _, v := range l.Versions {
		if !slices.Contains(defined, v) {
			return []string{fmt.Sprintf("%s does not define %s, which %s needs: it is older than ROCm %s, which this bundle was built with", file, v, l.NeededBy[0], s.host.ROCm)}
		}
	}
	return nil
}

// missingVersions returns the libraries that need symbol versions of the bundle's
// own libraries which those do not define.
func (s *finder) missingVersions(libs []elfdep.Lib) []string {
	highest := map[string]string{}
	for _, v := range s.host.Provides {
		if kind, _, ok := elfdep.SplitVersion(v); ok {
			highest[kind] = v
		}
	}
	var out []string
	for _, l := range libs {
		for _, need := range l.Versions {
			if !slices.Contains(s.bundled, need.Library) {
				continue // the closure has checked it
			}
			for _, v := range need.Versions {
				kind, _, ok := elfdep.SplitVersion(v)
				if ok && highest[kind] != "" && elfdep.CompareVersions(v, highest[kind]) > 0 {
					out = append(out, fmt.Sprintf("%s needs %s of %s, and the bundle contains %s: the host is newer than the bundle", l.InRoot, v, need.Library, highest[kind]))
				}
			}
		}
	}
	return out
}
