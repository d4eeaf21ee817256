package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// buildType is the URI of the build process in the provenance.
const buildType = "https://forge.lthn.ai/core/go-rocm/build/v1"

// Provenance returns the provenance of the files in subjects. revision is the git
// commit of go-rocm in hex, or empty if the files were not built from a commit;
// builder is the URI of the builder. Every input that a manifest records is listed
// once, with its digest.
func Provenance(m Inventory, subjects []release.Checksum, revision, builder string) (*release.Statement, error) {
	m, err := m.complete()
	if err != nil {
		return nil, err
	}
	parts, err := m.parts()
	if err != nil {
		return nil, err
	}
	if len(subjects) == 0 || builder == "" {
		return nil, fmt.Errorf("%w: subjects and builder are required", release.ErrProvenance)
	}
	own := release.Resource{URI: "git+https://forge.lthn.ai/core/go-rocm"}
	if revision != "" {
		own.Digest = map[string]string{"gitCommit": revision}
	}
	inputs := []release.Resource{own}
	for _, b := range m.Bundles {
		for _, r := range inputsOf(b.Manifest) {
			if !slices.ContainsFunc(inputs, func(had release.Resource) bool { return reflect.DeepEqual(had, r) }) {
				inputs = append(inputs, r)
			}
		}
	}
	for _, p := range parts {
		for _, f := range p.facts {
			if f.name != factGoSum {
				continue
			}
			d, err := dirHash(f.value)
			if err != nil {
				return nil, fmt.Errorf("%w: %s: %w", release.ErrProvenance, p.purl, err)
			}
			inputs = append(inputs, release.Resource{URI: p.purl, Digest: d})
		}
	}
	when := m.Epoch.UTC().Format(time.RFC3339)
	s := &release.Statement{
		Type: release.StatementType, PredicateType: release.PredicateType,
		Predicate: release.Predicate{
			BuildDefinition: release.BuildDefinition{
				BuildType:            buildType,
				ExternalParameters:   parameters(m),
				ResolvedDependencies: inputs,
			},
			RunDetails: release.RunDetails{Builder: release.Builder{ID: builder}, Metadata: release.Metadata{StartedOn: when, FinishedOn: when}},
		},
	}
	for _, sum := range subjects {
		s.Subject = append(s.Subject, release.Resource{Name: sum.Path, Digest: map[string]string{"sha256": sum.SHA256}})
	}
	return s, nil
}

// stagePackages returns the packages that single stages use in addition to the
// toolchain's. They are recorded in an option of the form
// "package=NAME VERSION ARCHITECTURE sha256:…".
func stagePackages(stages []bundle.Stage) []bundle.Package {
	var out []bundle.Package
	for _, s := range stages {
		for _, o := range s.Options {
			text, ok := strings.CutPrefix(o, "package=")
			if f := strings.Fields(text); ok && len(f) == 4 {
				out = append(out, bundle.Package{Name: f[0], Version: f[1], Arch: f[2], SHA256: strings.TrimPrefix(f[3], "sha256:")})
			}
		}
	}
	return out
}

// inputsOf returns the source, the toolchain and the packages of a bundle.
func inputsOf(m *bundle.Manifest) []release.Resource {
	out := []release.Resource{{Name: sourceName, URI: m.Source.URL, Digest: map[string]string{"gitTree": m.Source.Tree}}}
	if d := m.Toolchain.BaseDigest; d != "" {
		out = append(out, release.Resource{Name: "toolchain", Digest: digestOf(d)})
	}
	for _, p := range slices.Concat(m.Toolchain.Packages, stagePackages(m.Stages)) {
		r := release.Resource{Name: p.Name + "=" + p.Version + ":" + p.Arch}
		if p.SHA256 != "" {
			r.Digest = map[string]string{"sha256": p.SHA256}
		}
		out = append(out, r)
	}
	return out
}

func parameters(m Inventory) release.Parameters {
	p := release.Parameters{Version: m.Version}
	for _, b := range m.Bundles {
		of := release.BundleParameters{
			Name: b.Manifest.Name, Digest: "sha256:" + b.Manifest.Digest(),
			Locked: b.Manifest.Toolchain.Locked, Deviations: b.Manifest.Toolchain.Deviations,
			SourceDateEpoch: b.Manifest.SourceDateEpoch, Stages: b.Manifest.Stages,
		}
		for _, t := range b.Manifest.Targets {
			of.Targets = append(of.Targets, fmt.Sprint(t))
		}
		p.Bundles = append(p.Bundles, of)
	}
	return p
}

// dirHash converts a hash of go.sum to in-toto's format, in hex and without "h1:"
// (https://github.com/in-toto/attestation/blob/main/spec/v1/digest_set.md).
func dirHash(goSum string) (map[string]string, error) {
	text, ok := strings.CutPrefix(goSum, "h1:")
	b, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(b) != sha256.Size {
		return nil, fmt.Errorf("invalid go.sum hash %q: want \"h1:\" and %d bytes in base64", goSum, sha256.Size)
	}
	return map[string]string{"dirHash": hex.EncodeToString(b)}, nil
}

// digestOf splits an "algorithm:hex" digest.
func digestOf(d string) map[string]string {
	algorithm, value, ok := bytes.Cut([]byte(d), []byte(":"))
	if !ok {
		return map[string]string{"sha256": d}
	}
	return map[string]string{string(algorithm): string(value)}
}
