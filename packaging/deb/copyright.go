package deb

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/google/licensecheck"

	"forge.lthn.ai/core/go-rocm/packaging/licences"
)

// terms is the content of a copyright file.
type terms struct {
	linked    []licences.Component // in the command, its web page included
	bundled   []licences.Component // in the bundle
	own       string               // the text of go-rocm's own licence
	fullTexts bool                 // do not refer to /usr/share/common-licenses
}

// CopyrightFile returns the copyright file of the command with the linked
// components. In contrast to that in the package it contains every licence in
// full, for systems without Debian's /usr/share/common-licenses.
func CopyrightFile(linked []licences.Component, epoch time.Time) ([]byte, error) {
	own, err := readAsset("expat.txt")
	return terms{linked: linked, own: string(own), fullTexts: true}.copyright(epoch), err
}

// commandTerms reads the licences of the components that are linked into the command.
func commandTerms(c Command) (terms, error) {
	linked, err := licences.FromProgram(c.Program, c.ModuleCache, c.GoRoot)
	if err != nil {
		return terms{}, fmt.Errorf("%w: %w", ErrCommand, err)
	}
	if c.Page != "" {
		page, err := licences.FromPage(c.Page)
		if err != nil {
			return terms{}, fmt.Errorf("%w: %w", ErrCommand, err)
		}
		linked = append(linked, page...)
	}
	own, err := readAsset("expat.txt")
	return terms{linked: linked, own: string(own)}, err
}

// bundleTerms returns the licences of the components in a bundle.
func bundleTerms(b *unpackedBundle) (terms, error) {
	own, err := readAsset("expat.txt")
	return terms{bundled: b.components, own: string(own)}, err
}

// copyright returns the file in Debian's machine-readable format
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/). It quotes
// the licence texts of bundled packages verbatim.
func (t terms) copyright(epoch time.Time) []byte {
	w := &stanzas{}
	w.field("Format", "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/")
	w.field("Upstream-Name", "go-rocm")
	w.field("Source", "https://forge.lthn.ai/core/go-rocm")
	w.end()

	ours := fmt.Sprintf("%d The go-rocm authors", epoch.UTC().Year())
	w.field("Files", "*")
	w.field("Copyright", ours)
	w.field("License", "Expat")
	w.end()

	linked := t.linkedLicences()
	if len(t.linked) > 0 {
		names := []string{"Expat"}
		for _, l := range linked {
			names = append(names, l.name)
		}
		w.field("Files", "usr/bin/go-rocm")
		w.lines("Copyright", append([]string{ours}, holders(t.linked)...))
		w.field("License", strings.Join(names, " and "))
		w.lines("Comment", listing("Linked into the program, or in its web page:", t.linked))
		w.end()
	}
	if len(t.bundled) > 0 {
		var names []string
		for _, c := range t.bundled {
			names = append(names, c.Name)
		}
		w.field("Files", "usr/lib/go-rocm/llama/*")
		w.lines("Copyright", holders(t.bundled))
		w.field("License", strings.Join(names, " and "))
		w.lines("Comment", listing("Parts of these are in the bundle. The licence paragraph of each has its name:", t.bundled))
		w.end()
	}

	w.text("License", "Expat", t.own)
	for _, l := range linked {
		w.text("License", l.name, l.text)
	}
	for _, c := range t.bundled {
		var b strings.Builder
		for _, text := range c.Texts {
			b.WriteString(text.Body + "\n")
		}
		w.text("License", c.Name, b.String())
	}
	return w.bytes()
}

// licence is a licence paragraph: a short name and its text.
type licence struct{ name, text string }

// linkedLicences returns each distinct text of the linked modules once. Its name
// consists of its SPDX identifiers and, if that name is taken, of its module.
func (t terms) linkedLicences() []licence {
	var out []licence
	names := map[string]bool{"Expat": true}
	texts := map[string]bool{}
	for _, c := range t.linked {
		for _, text := range c.Texts {
			body := text.Body
			if !t.fullTexts {
				body = referToCommonLicenses(body)
			}
			key := strings.Join(strings.Fields(body), " ")
			if texts[key] {
				continue
			}
			texts[key] = true
			name := shortName(c)
			if names[name] {
				name += "~" + c.Name
			}
			for n := 2; names[name]; n++ {
				name = fmt.Sprintf("%s~%s~%d", shortName(c), c.Name, n)
			}
			names[name] = true
			out = append(out, licence{name: name, text: body})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}

// shortName joins Debian's names of the licences into one word.
func shortName(c licences.Component) string {
	if len(c.Licences) == 0 {
		return "terms~" + c.Name
	}
	var ids []string
	for _, id := range c.Licences {
		if id == "MIT" {
			id = "Expat"
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, "+")
}

// apacheTerms replaces the terms of the Apache License, because Debian has one copy
// for all packages (Policy 12.5).
const apacheTerms = `Licensed under the Apache License, Version 2.0.

On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
`

// referToCommonLicenses replaces the terms of the Apache License with a reference to the
// system's copy. It keeps the rest of the text, such as other licences and the
// copyright notice in the appendix.
func referToCommonLicenses(body string) string {
	for _, m := range slices.Backward(licensecheck.Scan([]byte(body)).Match) {
		terms := body[m.Start:m.End]
		if m.ID != "Apache-2.0" || !strings.Contains(terms, "TERMS AND CONDITIONS FOR USE, REPRODUCTION, AND DISTRIBUTION") {
			continue
		}
		_, appendix, _ := strings.Cut(terms, "END OF TERMS AND CONDITIONS")
		body = body[:m.Start] + apacheTerms + appendix + body[m.End:]
	}
	return body
}

// holders returns the copyright statements of components without duplicates.
func holders(cs []licences.Component) []string {
	var out []string
	seen := map[string]bool{}
	for _, c := range cs {
		if len(c.Holders) == 0 {
			out = append(out, fmt.Sprintf("the authors of %s, who are not named in its licence", c.Name))
		}
		for _, h := range c.Holders {
			if !seen[h] {
				seen[h] = true
				out = append(out, h)
			}
		}
	}
	return out
}

// listing returns one line for each component, with its version and licences.
func listing(head string, cs []licences.Component) []string {
	out := []string{head}
	for _, c := range cs {
		line := c.Name
		if c.Version != "" {
			line += " " + c.Version
		}
		if len(c.Licences) > 0 {
			line += " (" + strings.Join(c.Licences, ", ") + ")"
		}
		out = append(out, line)
	}
	return out
}

// stanzas formats paragraphs of fields.
type stanzas struct {
	b    strings.Builder
	open bool
}

func (w *stanzas) field(name, value string) {
	w.open = true
	fmt.Fprintf(&w.b, "%s: %s\n", name, value)
}

// lines writes a field with several lines, the first beside its name.
func (w *stanzas) lines(name string, values []string) {
	w.field(name, strings.Join(values, "\n "))
}

// text writes a field with a name as its first line and an indented text below.
func (w *stanzas) text(field, name, body string) {
	w.field(field, name)
	for line := range strings.Lines(strings.TrimSpace(body)) {
		line = strings.TrimRight(line, " \t\r\n\f\v")
		if line == "" {
			line = "."
		}
		fmt.Fprintf(&w.b, " %s\n", line)
	}
	w.end()
}

// end closes the paragraph.
func (w *stanzas) end() {
	if w.open {
		w.b.WriteByte('\n')
		w.open = false
	}
}

func (w *stanzas) bytes() []byte { return []byte(strings.TrimRight(w.b.String(), "\n") + "\n") }
