package elfdep

import (
	"bufio"
	"crypto/sha256"
	_ "embed" // the reviewed list
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Decision is what a reviewer found out about a name that a library may open.
type Decision struct {
	Bundle bool   // ship it; otherwise it is left out
	Name   string // or a pattern of path.Match
	In     string // SONAME of the library that opens it, or a pattern
	Reason string
}

//go:embed opened.txt
var reviewedText string

// Reviewed returns the decisions about the libraries of the hip and cpu
// bundles. They are data: opened.txt beside this file.
func Reviewed() ([]Decision, error) { return ParseDecisions(reviewedText) }

// ReviewedDigest is the hex SHA-256 of the list that Reviewed reads.
func ReviewedDigest() string { return fmt.Sprintf("%x", sha256.Sum256([]byte(reviewedText))) }

// ParseDecisions reads a reviewed list: one decision a line, the words
//
//	bundle|exclude NAME IN REASON...
//
// Empty lines and lines that begin with # are skipped. A decision without a
// reason, or a second one for the same NAME and IN, is an error.
func ParseDecisions(text string) ([]Decision, error) {
	var out []Decision
	sc := bufio.NewScanner(strings.NewReader(text))
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		d, err := parseDecision(line)
		if err == nil && slices.ContainsFunc(out, func(o Decision) bool { return o.Name == d.Name && o.In == d.In }) {
			err = fmt.Errorf("%s in %s is decided twice", d.Name, d.In)
		}
		if err != nil {
			return nil, fmt.Errorf("reviewed list, line %d: %w", n, err)
		}
		out = append(out, d)
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("reviewed list: %w", err)
	}
	return out, nil
}

func parseDecision(line string) (Decision, error) {
	f := strings.Fields(line)
	if len(f) < 4 {
		return Decision{}, errors.New("want: bundle|exclude NAME IN REASON")
	}
	d := Decision{Name: f[1], In: f[2], Reason: strings.Join(f[3:], " ")}
	switch f[0] {
	case "bundle":
		d.Bundle = true
	case "exclude":
	default:
		return d, fmt.Errorf("%q is neither bundle nor exclude", f[0])
	}
	for _, p := range []string{d.Name, d.In} {
		if _, err := path.Match(p, ""); err != nil {
			return d, fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	return d, nil
}

// Verdict is a decision applied to a candidate.
type Verdict struct {
	Candidate
	Decision
}

// Review decides about candidates. present reports whether a SONAME is in the
// closure already (such a name needs no decision). bundle are the names to add
// to the closure, excluded those left out, with reasons; both are sorted by
// name. Candidates without a decision are returned as one
// *UnreviewedError.
func Review(candidates []Candidate, decisions []Decision, present func(soname string) bool) (bundle, excluded []Verdict, err error) {
	var open []Candidate
	for _, c := range candidates {
		if present(c.Name) {
			continue
		}
		i := slices.IndexFunc(decisions, func(d Decision) bool { return matches(d.Name, c.Name) && matches(d.In, c.In) })
		switch {
		case i < 0:
			open = append(open, c)
		case decisions[i].Bundle:
			bundle = append(bundle, Verdict{c, decisions[i]})
		default:
			excluded = append(excluded, Verdict{c, decisions[i]})
		}
	}
	byName := func(a, b Verdict) int {
		return strings.Compare(a.Candidate.Name+"\x00"+a.Candidate.In, b.Candidate.Name+"\x00"+b.Candidate.In)
	}
	slices.SortFunc(bundle, byName)
	slices.SortFunc(excluded, byName)
	if len(open) > 0 {
		return bundle, excluded, &UnreviewedError{Names: open}
	}
	return bundle, excluded, nil
}

func matches(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}
