// Package licences lists the third-party components of a release and their
// licences: the Go modules linked into the command, Go itself, llama.cpp and the
// system packages whose files are in the bundle.
//
// It reads only what the build left: the build information in the command and the
// licence files in the bundle. A component without a licence text is an error,
// because it must not be distributed. packaging/deb writes the copyright files and
// packaging/attest the bills of materials from the result.
package licences

import (
	"errors"
	"regexp"
	"sort"
	"strings"

	"github.com/google/licensecheck"
)

// ErrNoLicence reports a component without a licence text.
var ErrNoLicence = errors.New("no licence text")

// Kind is the origin of a component.
type Kind string

// The kinds of components.
const (
	GoModule  Kind = "go"      // a module linked into the command
	GoRuntime Kind = "golang"  // Go's runtime and standard library
	Bundled   Kind = "bundled" // a component of a bundle
	WebPage   Kind = "page"    // a part of the web page in the command
)

// Component is a third-party component.
type Component struct {
	Kind Kind
	// Name is the module path, the directory name below the bundle's licenses, or the
	// name of an npm package.
	Name string
	// Version is the module's version. It is empty for bundled components, whose
	// versions are in the bundle's manifest.
	Version string
	// Sum is a module's hash from go.sum ("h1:…"), or the SHA-512 of an npm package
	// ("sha512-…"); empty for other components.
	Sum string
	// PURL is the package URL of a part of the web page; empty for other kinds.
	PURL string
	// Licences are the SPDX identifiers of the recognised texts, or the names that
	// a machine-readable text contains; sorted.
	Licences []string
	// Holders are the copyright statements without duplicates, in the order of the
	// texts.
	Holders []string
	// Texts are the licence texts; never empty.
	Texts []Text
}

// Text is one licence or notice file.
type Text struct {
	// Name is the file's base name.
	Name string
	// Body is its text in UTF-8, with "\n" as the line ending.
	Body string
}

// describe sets Licences and Holders from the texts.
func (c *Component) describe() {
	ids := map[string]bool{}
	seen := map[string]bool{}
	for _, t := range c.Texts {
		names, holders := readTerms(t.Body)
		for _, n := range names {
			ids[n] = true
		}
		for _, h := range holders {
			if !seen[h] {
				seen[h] = true
				c.Holders = append(c.Holders, h)
			}
		}
	}
	c.Licences = make([]string, 0, len(ids))
	for id := range ids {
		c.Licences = append(c.Licences, id)
	}
	sort.Strings(c.Licences)
}

// machineReadable matches the first field of a copyright file in Debian's format
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).
var machineReadable = regexp.MustCompile(`(?m)^Format(-Specification)?:\s*\S*(copyright-format|dep5?)\b`)

// readTerms returns the licence names and the copyright statements of a text.
func readTerms(body string) (licences, holders []string) {
	if machineReadable.MatchString(body) {
		return readFields(body)
	}
	for _, m := range licensecheck.Scan([]byte(body)).Match {
		if !m.IsURL {
			licences = append(licences, m.ID)
		}
	}
	for line := range strings.Lines(body) {
		if h := statement(line); h != "" {
			holders = append(holders, h)
		}
	}
	return licences, holders
}

var (
	// A copyright statement has a year or a symbol beside the word; prose about
	// copyright has neither.
	statementForm = regexp.MustCompile(`(?i)^\W*(?:(?:portions|parts|all code)\s+)?(?:copyright\b\W*(?:\(c\)|©|\d{4})|\(c\)\W*\d{4}|©)`)
	leadingMarks  = regexp.MustCompile(`^[\s*#/;.%|!-]+`)
)

// statement returns the copyright statement in a line, or "".
func statement(line string) string {
	if !statementForm.MatchString(line) {
		return ""
	}
	return strings.Join(strings.Fields(leadingMarks.ReplaceAllString(line, "")), " ")
}

// readFields returns the License and Copyright fields of a text in Debian's
// machine-readable format. Indented lines continue a value; only the first line of
// a License field is the name, the rest is the text.
func readFields(body string) (licences, holders []string) {
	field := ""
	for line := range strings.Lines(body) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t"):
			if field == "copyright" {
				holders = appendWords(holders, line)
			}
		default:
			name, value, _ := strings.Cut(line, ":")
			field = strings.ToLower(name)
			switch field {
			case "copyright":
				holders = appendWords(holders, value)
			case "license":
				licences = appendWords(licences, value)
			}
		}
	}
	return licences, holders
}

// appendWords appends value with single spaces between its words, unless it is
// empty.
func appendWords(to []string, value string) []string {
	value = strings.Join(strings.Fields(value), " ")
	if value == "" || value == "." {
		return to
	}
	return append(to, value)
}
