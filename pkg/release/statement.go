package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// The types of the statement and of what it says
// (https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance).
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
)

// ErrProvenance says that a statement is not one about provenance.
var ErrProvenance = errors.New("provenance")

// Statement is an in-toto statement with SLSA's provenance: these files came out
// of a build of these inputs.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Predicate  `json:"predicate"`
}

// Resource names something by digest.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Predicate is SLSA's provenance, version 1.
type Predicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition says what went in.
type BuildDefinition struct {
	BuildType            string     `json:"buildType"`
	ExternalParameters   Parameters `json:"externalParameters"`
	ResolvedDependencies []Resource `json:"resolvedDependencies"`
}

// Parameters are what the build was asked for.
type Parameters struct {
	Version string             `json:"version"`
	Bundles []BundleParameters `json:"bundles"`
}

// BundleParameters are what a bundle was asked to be, and what it came out as.
type BundleParameters struct {
	Name            string         `json:"name"`
	Digest          string         `json:"digest"` // of its manifest, "sha256:" and hex
	Targets         []string       `json:"targets,omitempty"`
	Locked          bool           `json:"locked"`
	Deviations      []string       `json:"deviations,omitempty"`
	SourceDateEpoch int64          `json:"sourceDateEpoch"`
	Stages          []bundle.Stage `json:"stages,omitempty"`
}

// RunDetails say who built.
type RunDetails struct {
	Builder  Builder  `json:"builder"`
	Metadata Metadata `json:"metadata"`
}

// Builder names the builder by a URI.
type Builder struct {
	ID string `json:"id"`
}

// Metadata has the times of the build. They are the release's own time, since
// two builds of the same inputs are to be the same bytes.
type Metadata struct {
	StartedOn  string `json:"startedOn"`
	FinishedOn string `json:"finishedOn"`
}

// maxStatement bounds what is read of a statement, in bytes; a real one has
// some tens of thousands.
const maxStatement = 16 << 20

// ParseStatement reads a statement about provenance. Other types, unknown fields
// and subjects without a sha256 are errors.
func ParseStatement(r io.Reader) (*Statement, error) {
	raw, err := io.ReadAll(io.LimitReader(r, maxStatement+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProvenance, err)
	}
	if len(raw) > maxStatement {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrProvenance, maxStatement)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var s Statement
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProvenance, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the statement", ErrProvenance)
	}
	if s.Type != StatementType || s.PredicateType != PredicateType {
		return nil, fmt.Errorf("%w: a statement of type %q about %q, not SLSA provenance", ErrProvenance, s.Type, s.PredicateType)
	}
	for _, sub := range s.Subject {
		if sub.Name == "" || !hexDigest.MatchString(sub.Digest["sha256"]) {
			return nil, fmt.Errorf("%w: subject %q has no sha256", ErrProvenance, sub.Name)
		}
	}
	return &s, nil
}

// Covers says whether the statement is about a file: one of its name and digest
// or, where it names another, a copy of one that it names. An error tells what is
// not so.
func (s *Statement) Covers(sum Checksum) error {
	var copied bool
	for _, sub := range s.Subject {
		same := sub.Digest["sha256"] == sum.SHA256
		if sub.Name == sum.Path && !same {
			return fmt.Errorf("%w: %s has sha256 %s, the statement is about %s", ErrProvenance, sum.Path, sum.SHA256, sub.Digest["sha256"])
		}
		copied = copied || same
	}
	if !copied {
		return fmt.Errorf("%w: the statement does not name %s", ErrProvenance, sum.Path)
	}
	return nil
}
