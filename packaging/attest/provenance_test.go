package attest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/release"
	"github.com/google/go-cmp/cmp"
)

var subjects = []release.Checksum{{SHA256: strings.Repeat("1", 64), Path: "go-rocm"}, {SHA256: strings.Repeat("2", 64), Path: "go-rocm.deb"}}

func statement(t *testing.T) *release.Statement {
	t.Helper()
	s, err := attest.Provenance(inventory(t), subjects, strings.Repeat("e", 40), "https://example.test/builder")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProvenanceRoundTrips(t *testing.T) {
	t.Parallel()
	s := statement(t)
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "provenance.json", append(text, '\n'))
	back, err := release.ParseStatement(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("parsing the statement differs:\n%s", diff)
	}
	if err := s.Covers(subjects[1]); err != nil {
		t.Error(err)
	}
	if err := s.Covers(release.Checksum{SHA256: subjects[1].SHA256, Path: "pool/copy.deb"}); err != nil {
		t.Errorf("a copy: %v", err)
	}
	for want, sum := range map[string]release.Checksum{
		"does not contain other": {SHA256: strings.Repeat("3", 64), Path: "other"},
		"the statement has 1111": {SHA256: strings.Repeat("3", 64), Path: "go-rocm"},
	} {
		if err := s.Covers(sum); !errors.Is(err, release.ErrProvenance) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %q", err, want)
		}
	}
}

// Each input of a bundle is listed once.
func TestProvenanceListsTheInputsOfAllBundles(t *testing.T) {
	t.Parallel()
	s := statement(t)
	count := map[string]int{}
	for _, r := range s.Predicate.BuildDefinition.ResolvedDependencies {
		count[r.Name+r.URI]++
	}
	for _, name := range []string{"llama.cpp", "toolchain", "libx1=1:2.0+dfsg-1:amd64", "gcc=4:15.2:amd64", "gcc=4:15.3:amd64", "libhip=6.4-1:amd64", purlMod} {
		if count[name] != 1 {
			t.Errorf("%s occurs %d times among the inputs", name, count[name])
		}
	}
	got := map[string][]string{}
	for _, b := range s.Predicate.BuildDefinition.ExternalParameters.Bundles {
		got[b.Name] = b.Targets
	}
	if diff := cmp.Diff(map[string][]string{"llama-cpu": nil, "llama-hip": {"gfx1100"}}, got); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
}

func TestProvenanceWithoutCommit(t *testing.T) {
	t.Parallel()
	s, err := attest.Provenance(inventory(t), subjects, "", "https://example.test/builder")
	if err != nil {
		t.Fatal(err)
	}
	want := release.Resource{URI: "git+https://forge.lthn.ai/core/go-rocm"}
	if diff := cmp.Diff(want, s.Predicate.BuildDefinition.ResolvedDependencies[0]); diff != "" {
		t.Error(diff)
	}
}

// The expected hash is the example of in-toto's specification.
func TestProvenanceConvertsModuleHashes(t *testing.T) {
	t.Parallel()
	const want = "2a1bb6127fb481c60f67692e22285fb306f3c6ffe62075e0ccf674d7c3adcb8f"
	var found []string
	for _, r := range statement(t).Predicate.BuildDefinition.ResolvedDependencies {
		if d, ok := r.Digest["dirHash"]; ok {
			found = append(found, r.URI+" "+d)
		}
	}
	if diff := cmp.Diff([]string{"pkg:golang/github.com/some/mod@v1.2.3 " + want}, found); diff != "" {
		t.Errorf("modules (-want +got):\n%s", diff)
	}
}

func TestProvenanceRejectsInvalidModuleHashes(t *testing.T) {
	t.Parallel()
	for _, sum := range []string{"h1:abc=", "Khu2En+0gcYPZ2kuIihfswbzxv/mIHXgzPZ018Oty48=", "h1:Khu2En", "h2:Khu2En+0gcYPZ2kuIihfswbzxv/mIHXgzPZ018Oty48="} {
		m := inventory(t)
		m.Linked[0].Sum = sum
		if _, err := attest.Provenance(m, subjects, "", "https://example.test/builder"); !errors.Is(err, release.ErrProvenance) || !strings.Contains(err.Error(), sum) {
			t.Errorf("%s: %v", sum, err)
		}
	}
}

// A package that only one stage uses is an input like those of the toolchain.
func TestProvenanceListsPackagesOfStages(t *testing.T) {
	t.Parallel()
	m := inventory(t)
	sum := strings.Repeat("9", 64)
	cpu(m).Manifest.Stages = []bundle.Stage{{
		Name: "llvm", Digest: strings.Repeat("8", 64),
		Options: []string{"file=libLLVM.so.21.1", "package=llvm-21-dev 1:21.1.8-13 amd64 sha256:" + sum, "package=half a line"},
	}}
	s, err := attest.Provenance(m, subjects, strings.Repeat("e", 40), "https://example.test/builder")
	if err != nil {
		t.Fatal(err)
	}
	want := release.Resource{Name: "llvm-21-dev=1:21.1.8-13:amd64", Digest: map[string]string{"sha256": sum}}
	var found int
	for _, r := range s.Predicate.BuildDefinition.ResolvedDependencies {
		if strings.HasPrefix(r.Name, "llvm-") || strings.HasPrefix(r.Name, "half") {
			found++
			if d := cmp.Diff(want, r); d != "" {
				t.Error(d)
			}
		}
	}
	if found != 1 {
		t.Errorf("%d packages of stages among the inputs", found)
	}
}
