package build

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// packedBundle returns a small bundle whose server has the given text.
func packedBundle(t *testing.T, server string) *recipe.Packed {
	t.Helper()
	dir := t.TempDir()
	licence := writeFile(t, filepath.Join(dir, "licenses/llama.cpp/LICENSE"), "Copyright (c) 2023 Some Authors\n")
	if err := errors.Join(os.Chmod(licence, 0o644), os.Chmod(writeFile(t, filepath.Join(dir, "llama-server"), server), 0o755)); err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-cpu", Variant: "cpu", Flavour: bundle.FlavourHermetic, Version: "v0.5.0", SourceDateEpoch: 1700000000,
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)},
		Entry:  bundle.Entry{Loader: "llama-server", Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	return &recipe.Packed{Variant: "cpu", Bundle: &stage.Result{Dir: dir}, Manifest: m}
}

// The published package of a bundle is used again, version and bytes, until the bundle
// changes.
func TestUnchangedBundleKeepsItsPublishedPackage(t *testing.T) {
	s, d := newSession(t, "GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=https://example.org/apt")
	for _, dir := range []string{"deb", "assets", "licences"} {
		writeFile(t, filepath.Join(d.root, "packaging", dir, "code"), "x")
	}
	built := func(version string, p *recipe.Packed) (name, text string) {
		t.Helper()
		dir, err := s.bundleDeb(t.Context(), d.root, version, p)
		if err != nil {
			t.Fatal(err)
		}
		file, err := findOne(dir, "*.deb")
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return filepath.Base(file), string(b)
	}
	served := filepath.Join(t.TempDir(), aptDir)
	s.Settings.Published = filepath.Dir(served)
	publish := func(ago time.Duration, name, text string) {
		t.Helper()
		deb := writeFile(t, filepath.Join(d.dir, name), text)
		s.Settings.ReleaseDate = time.Now().Add(-ago).Truncate(time.Second)
		if err := s.aptInto(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.RemoveAll(served), os.Rename(filepath.Join(d.dir, aptDir), served), os.Remove(deb)); err != nil {
			t.Fatal(err)
		}
	}
	first, other := packedBundle(t, "#!/bin/sh\n"), packedBundle(t, "#!/bin/sh\nexit\n")
	name, text := built("0.1.0+llama.0.5.0", first)
	if name != "go-rocm-llama-cpu_0.1.0+llama.0.5.0-1_amd64.deb" {
		t.Errorf("with nothing published: %s", name)
	}
	publish(3*time.Hour, name, text)

	second, same := built("0.2.0+llama.0.5.0", first)
	if second != name || same != text {
		t.Errorf("the same bundle: %s, equal bytes %t", second, same == text)
	}
	if said := s.Out.(*bytes.Buffer).String(); !strings.Contains(said, "unchanged since 0.1.0+llama.0.5.0-1") { //nolint:errcheck,forcetypeassert // newSession made it
		t.Errorf("said %q", said)
	}
	newer, changed := built("0.2.0+llama.0.5.0", other)
	if newer != "go-rocm-llama-cpu_0.2.0+llama.0.5.0-1_amd64.deb" {
		t.Errorf("another bundle: %s", newer)
	}
	publish(2*time.Hour, newer, changed)
	// Clients have the other bundle by now: returning to the first needs a new version.
	if back, _ := built("0.3.0+llama.0.5.0", first); back != "go-rocm-llama-cpu_0.3.0+llama.0.5.0-1_amd64.deb" {
		t.Errorf("the first bundle again: %s", back)
	}
}
