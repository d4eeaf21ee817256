// Package origin says what other people's work is inside a release and under
// which terms: the Go modules linked into the command, Go itself, llama.cpp and
// the system packages whose files are in the bundle.
//
// It reads what the build left behind (the build information inside the command,
// the licence files inside the bundle) and asks nobody: a component whose terms
// are not to be found is an error, since it cannot be passed on. What is made of
// the facts is the business of the copyright file in packaging/deb and of the
// documents in packaging/attest.
package licences

import (
	"errors"
	"regexp"
	"sort"
	"strings"

	"github.com/google/licensecheck"
)

// ErrNoLicence says that a component came without its terms.
var ErrNoLicence = errors.New("no licence text")

// Kind tells where a component comes from.
type Kind string

// The kinds of components.
const (
	GoModule  Kind = "go"      // a module linked into the command
	GoRuntime Kind = "golang"  // Go's own run time and standard library
	Bundled   Kind = "bundled" // something whose files are in the bundle
)

// Component is one piece of other people's work.
type Component struct {
	Kind Kind
	// Name is the module path, or the folder's name below the bundle's licenses.
	Name string
	// Version is the module's version; empty where the bundle's manifest is the
	// one to know.
	Version string
	// Sum is the module's hash as go.sum writes it ("h1:…"); empty for others.
	Sum string
	// Licences are the SPDX identifiers that the texts were recognised as, or
	// that a machine-readable text names itself; sorted.
	Licences []string
	// Holders are the copyright statements, each once, in the order of the texts.
	Holders []string
	// Texts are the licence texts as found; never empty.
	Texts []Text
}

// Text is one licence or notice file.
type Text struct {
	// Name is the file's base name.
	Name string
	// Body is its text in UTF-8, lines ended by "\n".
	Body string
}

// describe reads the texts and sets Licences and Holders.
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

// machineReadable is how a copyright file in Debian's format begins
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/).
var machineReadable = regexp.MustCompile(`(?m)^Format(-Specification)?:\s*\S*(copyright-format|dep5?)\b`)

// readTerms gives the licence names and the copyright statements of a text.
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
	// A statement has a year or a mark beside the word; prose about copyright
	// has neither.
	statementForm = regexp.MustCompile(`(?i)^\W*(?:(?:portions|parts|all code)\s+)?(?:copyright\b\W*(?:\(c\)|©|\d{4})|\(c\)\W*\d{4}|©)`)
	leadingMarks  = regexp.MustCompile(`^[\s*#/;.%|!-]+`)
)

// statement gives the copyright statement that a line is, or "".
func statement(line string) string {
	if !statementForm.MatchString(line) {
		return ""
	}
	return strings.Join(strings.Fields(leadingMarks.ReplaceAllString(line, "")), " ")
}

// readFields takes the License and Copyright fields out of a text in Debian's
// machine-readable format. A value goes on over indented lines; of a licence
// only the first line is its name, the rest is its text.
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

// appendWords appends value, its blanks made single, unless nothing is left.
func appendWords(to []string, value string) []string {
	value = strings.Join(strings.Fields(value), " ")
	if value == "" || value == "." {
		return to
	}
	return append(to, value)
}
