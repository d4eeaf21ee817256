package bundle

import (
	"fmt"
	"strings"
)

// ValidPath reports why a path may not be in a bundle, or nil. Allowed are
// slash-separated relative paths of portable characters, without "." and ".."
// elements, so that one path means one file on every system and in every
// shell command somebody pastes it into.
func ValidPath(p string) error {
	if p == "" || len(p) > maxPath {
		return fmt.Errorf("path of %d bytes: want 1 to %d", len(p), maxPath)
	}
	if p == ManifestName {
		return fmt.Errorf("the name %s is reserved", ManifestName)
	}
	for e := range strings.SplitSeq(p, "/") {
		switch {
		case e == "" || e == "." || e == "..":
			return fmt.Errorf("path element %q is not allowed", e)
		case len(e) > maxElement:
			return fmt.Errorf("path element of %d bytes: want at most %d", len(e), maxElement)
		case e[0] == '-' || e[0] == '~':
			return fmt.Errorf("path element %q must not begin with %q", e, e[0])
		}
		for i := range len(e) {
			if !pathChar(e[i]) {
				return fmt.Errorf("path has the character %q; allowed are ASCII letters, digits and ._+-@,=%%~", e[i])
			}
		}
	}
	return nil
}

func pathChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._+-@,=%~", c) >= 0
}

func parentOf(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}
