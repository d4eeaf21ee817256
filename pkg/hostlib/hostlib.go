// Package hostlib lists the libraries that a bundle of the system flavour uses from
// its host: which of them belong to ROCm, and which package of Debian, Ubuntu or AMD
// contains each.
//
// Both sides share the list. The build excludes exactly these libraries and records
// their packages in the manifest. The run side names the packages to install. The
// list is reviewed data with its sources: libraries.txt beside this file. The package
// does not read the machine (runtime/hostrocm does).
package hostlib

import (
	"bufio"
	"crypto/sha256"
	_ "embed" // the reviewed list
	"errors"
	"fmt"
	"strings"
)

// Library describes one shared library.
type Library struct {
	SONAME string // such as "libamdhip64.so.6"
	// ROCm reports whether the library is a part of ROCm.
	ROCm bool
	// Debian and AMD are package names, empty if that archive has none.
	Debian, AMD string
}

// row is a line of the list.
type row struct {
	pattern     string
	rocm        bool
	debian, amd string
}

//go:embed libraries.txt
var list string

// Table is a list of libraries.
type Table struct{ rows []row }

// Reviewed returns the project's own table.
func Reviewed() (*Table, error) { return Parse(list) }

// ReviewedDigest returns the hex SHA-256 of the table that Reviewed parses.
func ReviewedDigest() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(list))) }

// Parse parses a table: lines of rocm|other SONAME DEBIAN AMD, as libraries.txt
// describes them. A second line for the same SONAME is an error.
func Parse(text string) (*Table, error) {
	t := &Table{}
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		r, err := parseRow(line)
		for _, o := range t.rows {
			if err == nil && o.pattern == r.pattern {
				err = fmt.Errorf("%s is listed twice", r.pattern)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("list of host libraries, line %d: %w", n, err)
		}
		t.rows = append(t.rows, r)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("list of host libraries: %w", err)
	}
	return t, nil
}

func parseRow(line string) (row, error) {
	f := strings.Fields(line)
	if len(f) != 4 {
		return row{}, errors.New("want: rocm|other SONAME DEBIAN AMD")
	}
	if f[0] != "rocm" && f[0] != "other" {
		return row{}, fmt.Errorf("%q is neither rocm nor other", f[0])
	}
	if stem := Stem(f[1]); stem == "" || strings.Contains(f[1], "*") && f[1] != stem+"*" {
		return row{}, fmt.Errorf("%q is neither a SONAME nor one with * for all of its version", f[1])
	}
	for i := 2; i < 4; i++ {
		if f[i] == "-" {
			f[i] = ""
		}
	}
	return row{pattern: f[1], rocm: f[0] == "rocm", debian: f[2], amd: f[3]}, nil
}

// Lookup returns the library of the first line that matches a SONAME; ok is false if
// none does.
func (t *Table) Lookup(soname string) (lib Library, ok bool) {
	for _, r := range t.rows {
		version, found := strings.CutPrefix(soname, Stem(r.pattern))
		if !found || version == "" || (r.pattern != soname && !strings.HasSuffix(r.pattern, ".so.*")) {
			continue
		}
		major, _, _ := strings.Cut(version, ".")
		fill := func(name string) string { return strings.ReplaceAll(name, "*", major) }
		return Library{SONAME: soname, ROCm: r.rocm, Debian: fill(r.debian), AMD: fill(r.amd)}, true
	}
	return Library{}, false
}

// Stem returns a SONAME without its version: "libamdhip64.so." for
// "libamdhip64.so.6". It returns "" for a name without a version.
func Stem(soname string) string {
	i := strings.Index(soname, ".so.")
	if i <= 0 {
		return ""
	}
	return soname[:i+len(".so.")]
}

// MatchesPackage reports whether a Debian package is the one that the table lists for
// a library. Since the change to 64-bit times some names end in t64, and those
// packages provide the old names.
func (l Library) MatchesPackage(owner string) bool {
	return l.Debian != "" && (owner == l.Debian || owner == l.Debian+"t64")
}
