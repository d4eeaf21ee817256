package build

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"forge.lthn.ai/core/go-rocm/packaging/licences"
)

// runGit runs git in dir with an author and returns its trimmed output.
func runGit(t *testing.T, dir string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// readFile returns the contents of a file.
func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// commitModule commits a small module in root and returns its files.
func commitModule(t *testing.T, root string) []string {
	t.Helper()
	runGit(t, root, "init", "--quiet")
	writeFile(t, filepath.Join(root, "go.mod"), "module "+modulePath+"\n\ngo 1.26\n")
	writeFile(t, filepath.Join(root, "a.go"), "package a\n")
	runGit(t, root, "add", "go.mod", "a.go")
	runGit(t, root, "commit", "--quiet", "-m", "first")
	return []string{"go.mod", "a.go"}
}

// material returns the input of a provenance.
func material(t *testing.T) attest.Inventory {
	t.Helper()
	p := packedBundle(t, "#!/bin/sh\n")
	bundled, err := licences.FromBundle(p.Bundle.Dir)
	if err != nil {
		t.Fatal(err)
	}
	golang := licences.Component{Kind: licences.GoRuntime, Name: "go", Version: "1.26.1", Texts: []licences.Text{{Name: "LICENSE", Body: "Terms.\n"}}}
	return attest.Inventory{
		Version: "0.1.0", Epoch: time.Unix(1700000000, 0), Linked: []licences.Component{golang},
		Bundles: []attest.Bundle{{Manifest: p.Manifest, Components: bundled}},
	}
}

// A release that is added to an earlier one describes only its own files in the
// provenance.
func TestProvenanceOmitsEarlierReleases(t *testing.T) {
	if testing.Short() {
		t.Skip("it packs two releases; `mage test` runs this test")
	}
	key, published := "GOROCM_SIGNING_KEY="+provenanceKey(t), ""
	for _, version := range []string{"v0.1.0", "v0.2.0"} {
		s, d := newSession(t, key, "GOROCM_PUBLISHED="+published)
		files := commitModule(t, d.root)
		if err := s.addModule(t.Context(), d, filepath.Join(d.dir, proxyDir), modulePath, version, d.sourceFiles(files)); err != nil {
			t.Fatal(err)
		}
		if err := s.provenanceInto(t.Context(), d, material(t)); err != nil {
			t.Fatal(err)
		}
		for _, step := range []step{s.earlierModulesInto, s.checksumInto, s.verifyRelease} {
			if err := step(t.Context(), d); err != nil {
				t.Fatalf("%s: %v", version, err)
			}
		}
		published = d.dir
	}
	list := filepath.Join(published, proxyDir, modulePath, "@v/list")
	if got := readFile(t, list); got != "v0.1.0\nv0.2.0\n" {
		t.Errorf("%s: %q", list, got)
	}
}
