package apt

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// contents says which packages have a file: qualified names ("section/package")
// by path.
type contents map[string][]string

func (c contents) add(path, pkg string) {
	if at, found := slices.BinarySearch(c[path], pkg); !found {
		c[path] = slices.Insert(c[path], at, pkg)
	}
}

// format writes the lines sorted by path.
func (c contents) format() []byte {
	var b bytes.Buffer
	for _, path := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%s %s\n", path, strings.Join(c[path], ","))
	}
	return b.Bytes()
}

// parseContents reads what format wrote. A path may hold blanks, the names that
// end its line cannot.
func parseContents(r io.Reader) (contents, error) {
	c := contents{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at <= 0 || at == len(line)-1 {
			return nil, fmt.Errorf("contents: line %d is not a path and names of packages", n)
		}
		for pkg := range strings.SplitSeq(line[at+1:], ",") {
			if pkg == "" {
				return nil, fmt.Errorf("contents: line %d names an empty package", n)
			}
			c.add(line[:at], pkg)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("contents: %w", err)
	}
	return c, nil
}

func (c contents) clone() contents {
	out := make(contents, len(c))
	for path, pkgs := range c {
		out[path] = slices.Clone(pkgs)
	}
	return out
}
