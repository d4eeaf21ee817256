package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// The types of the statement and its predicate
// (https://in-toto.io/Statement/v1, https://slsa.dev/spec/v1.0/provenance).
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PredicateType = "https://slsa.dev/provenance/v1"
)

// ErrProvenance reports an invalid provenance statement.
var ErrProvenance = errors.New("provenance")

// Statement is an in-toto statement with SLSA provenance: its subjects were built
// from its resolved dependencies.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Predicate  `json:"predicate"`
}

// Resource identifies an artifact by digest.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"`
}

// Predicate is SLSA provenance, version 1.
type Predicate struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition lists the inputs of the build.
type BuildDefinition struct {
	BuildType            string     `json:"buildType"`
	ExternalParameters   Parameters `json:"externalParameters"`
	ResolvedDependencies []Resource `json:"resolvedDependencies"`
}

// Parameters are the parameters of the build.
type Parameters struct {
	Version string             `json:"version"`
	Bundles []BundleParameters `json:"bundles"`
}

// BundleParameters are the parameters of a bundle, and the digest of the result.
type BundleParameters struct {
	Name            string         `json:"name"`
	Digest          string         `json:"digest"` // of its manifest, "sha256:" and hex
	Targets         []string       `json:"targets,omitempty"`
	Locked          bool           `json:"locked"`
	Deviations      []string       `json:"deviations,omitempty"`
	SourceDateEpoch int64          `json:"sourceDateEpoch"`
	Stages          []bundle.Stage `json:"stages,omitempty"`
}

// RunDetails describe the builder and the run.
type RunDetails struct {
	Builder  Builder  `json:"builder"`
	Metadata Metadata `json:"metadata"`
}

// Builder identifies the builder by a URI.
type Builder struct {
	ID string `json:"id"`
}

// Metadata contains the times of the build. Both are the time of the release, so
// that two builds of the same inputs produce the same bytes.
type Metadata struct {
	StartedOn  string `json:"startedOn"`
	FinishedOn string `json:"finishedOn"`
}

// maxStatement limits the size of a statement, in bytes. A real one has some tens
// of thousands.
const maxStatement = 16 << 20

// ParseStatement parses a provenance statement. Other types, unknown fields and
// subjects without a SHA-256 digest are errors.
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
		return nil, fmt.Errorf("%w: trailing data after the statement", ErrProvenance)
	}
	if s.Type != StatementType || s.PredicateType != PredicateType {
		return nil, fmt.Errorf("%w: the statement has type %q and predicate %q, not SLSA provenance", ErrProvenance, s.Type, s.PredicateType)
	}
	for _, sub := range s.Subject {
		if sub.Name == "" || !hexDigest.MatchString(sub.Digest["sha256"]) {
			return nil, fmt.Errorf("%w: subject %q has no sha256 digest", ErrProvenance, sub.Name)
		}
	}
	return &s, nil
}

// Covers returns nil if a subject has the digest of the file, under its name or as
// a copy under another. It is an error if a subject has the same name and another
// digest.
func (s *Statement) Covers(sum Checksum) error {
	var copied bool
	for _, sub := range s.Subject {
		same := sub.Digest["sha256"] == sum.SHA256
		if sub.Name == sum.Path && !same {
			return fmt.Errorf("%w: %s has sha256 %s, the statement has %s", ErrProvenance, sum.Path, sum.SHA256, sub.Digest["sha256"])
		}
		copied = copied || same
	}
	if !copied {
		return fmt.Errorf("%w: the statement does not contain %s", ErrProvenance, sum.Path)
	}
	return nil
}
