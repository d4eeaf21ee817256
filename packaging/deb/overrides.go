package deb

import (
	"fmt"
	"strings"
)

// override answers a lintian tag for a package, with the reason that stands
// above it in the installed file.
type override struct {
	tag    string // with the context that the tag is limited to, if any
	reason string
}

func commandOverrides() []override { return nil }

func bundleOverrides(*unpacked) []override { return nil }

// overridesFile is the file that lintian reads for a package.
func overridesFile(name string, list []override) []byte {
	var b strings.Builder
	for i, o := range list {
		if i > 0 {
			b.WriteByte('\n')
		}
		for _, line := range fold(o.reason, 76) {
			fmt.Fprintf(&b, "# %s\n", line)
		}
		fmt.Fprintf(&b, "%s: %s\n", name, o.tag)
	}
	return []byte(b.String())
}
