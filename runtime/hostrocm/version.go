package hostrocm

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// versionLine is the first line of ROCm's version file: the release, and the
// number of the build after a dash.
const versionLine = `^([0-9]+(?:\.[0-9]+)*)(?:[-.+~][0-9A-Za-z.+~-]*)?$`

// ParseVersion reads the content of .info/version in a folder of ROCm, such as
// "6.4.1-83", and gives the release, "6.4.1".
func ParseVersion(b []byte) (string, error) {
	line, _, _ := bytes.Cut(b, []byte("\n"))
	text := strings.TrimSpace(string(line))
	m := regexp.MustCompile(versionLine).FindStringSubmatch(text)
	if m == nil || len(text) > 64 {
		return "", fmt.Errorf("%.64q is not a version of ROCm such as 6.4.1-83", text)
	}
	return m[1], nil
}

// compareVersions orders dotted numbers; what is no number counts as 0.
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
