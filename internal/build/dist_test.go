package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/internal/settings"
)

// inTree gives a session in a checkout, which is the current folder.
func inTree(t *testing.T, environ ...string) (s *Session, root string) {
	t.Helper()
	root = t.TempDir()
	t.Chdir(root)
	put(t, filepath.Join(root, "go.mod"), "module "+modulePath+"\n")
	set, err := settings.Parse(append(environ, "GOROCM_CACHE="+filepath.Join(root, "cache"), "GOROCM_VERSION=1.0.0", "GOROCM_BASE_IMAGE=none", "CI=false"))
	if err != nil {
		t.Fatal(err)
	}
	return &Session{Settings: set, Recipe: &recipe.Recipe{Lock: recipe.Lock{Tag: "v0"}}, Out: &bytes.Buffer{}}, root
}

// writes is a step that puts files into a delivery.
func writes(t *testing.T, names ...string) step {
	return func(_ context.Context, d *delivery) error {
		for _, name := range names {
			put(t, filepath.Join(d.dir, name), "new")
		}
		return nil
	}
}

func TestDeliver(t *testing.T) {
	s, root := inTree(t)
	dist := filepath.Join(root, "dist")
	check := func(what, want string) {
		t.Helper()
		if got := contentOf(t, filepath.Join(dist, commandName)); got != want {
			t.Errorf("%s: the delivery is %q, want %q", what, got, want)
		}
		for _, mark := range []string{partMark, oldMark} {
			if exists(dist + mark) {
				t.Errorf("%s: %s was left", what, dist+mark)
			}
		}
	}
	// A release that was not proven is not delivered, and what was there stays.
	put(t, filepath.Join(dist, commandName), "of before")
	differs := errors.New("not reproducible")
	err := s.deliver(t.Context(), nil, writes(t, commandName), func(context.Context, *delivery) error { return differs })
	if !errors.Is(err, differs) {
		t.Errorf("got %v", err)
	}
	check("not proven", "of before")
	// One that was killed between its two renames is as if it had never been.
	if err := os.Rename(dist, dist+oldMark); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dist+partMark, workMark+"1", "v1.zip"), "half")
	err = s.deliver(t.Context(), nil, func(context.Context, *delivery) error {
		if got := contentOf(t, filepath.Join(dist, commandName)); got != "of before" {
			t.Errorf("while the next is made there is %q", got)
		}
		return differs
	})
	if !errors.Is(err, differs) {
		t.Errorf("got %v", err)
	}
	check("cut short", "of before")
	// One that was killed after them has left the one before.
	put(t, filepath.Join(dist+oldMark, commandName), "of long ago")
	if err := s.deliver(t.Context(), nil, writes(t, commandName)); err != nil {
		t.Fatal(err)
	}
	check("delivered", "new")
	put(t, filepath.Join(dist+oldMark, commandName), "of before")
	if err := s.clean(root); err != nil || exists(dist) || exists(dist+oldMark) {
		t.Errorf("clean: %v", err)
	}
}

// A folder that holds something else is neither replaced nor removed.
func TestDeliverLeavesOtherFoldersAlone(t *testing.T) {
	for name, tc := range map[string]struct{ dist, file string }{
		"the checkout":            {".", "embed/README"},
		"the folder above it":     {"..", "mine"},
		"no command":              {"out", "out/apt/pool/x.deb"},
		"something of a delivery": {"out", "out/go-rocm.txt"},
		"a hidden folder":         {"out", "out/.git/config"},
		"a file":                  {"out", "out"},
		"beside it":               {"out", "out.old/mine"},
		"the one being made":      {"out", "out.part/mine"},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := inTree(t, "GOROCM_DIST="+tc.dist)
			file := filepath.Join(root, tc.file)
			put(t, file, "mine")
			if strings.Contains(name, "of a delivery") || strings.Contains(name, "hidden") {
				put(t, filepath.Join(root, "out", commandName), "program")
			}
			ran := func(context.Context, *delivery) error { t.Error("a build began"); return nil }
			for what, err := range map[string]error{"deliver": s.deliver(t.Context(), nil, ran), "clean": s.clean(root)} {
				if !errors.Is(err, errNoDelivery) || !strings.Contains(err.Error(), "GOROCM_DIST") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if got := contentOf(t, file); got != "mine" {
				t.Errorf("the file is %q", got)
			}
		})
	}
}

// A step that adds what no delivery is known to have is found at once, and not
// when the next delivery refuses to replace it.
func TestDeliverKnowsWhatItDelivers(t *testing.T) {
	s, _ := inTree(t)
	if err := s.deliver(t.Context(), nil, writes(t, commandName, "novelty")); !errors.Is(err, errNoDelivery) || !strings.Contains(err.Error(), "novelty") {
		t.Errorf("got %v", err)
	}
}

// A folder that is named with a slash at its end is replaced, not filled.
func TestDeliverWithASlash(t *testing.T) {
	s, root := inTree(t)
	s.Settings.Dist = filepath.Join(root, "out") + "/"
	for range 2 {
		if err := s.deliver(t.Context(), nil, writes(t, commandName)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(s.Settings.Dist)
	if err != nil || len(entries) != 1 {
		t.Errorf("it holds %v, %v", entries, err)
	}
}

// What is published in the folder for the deliverables, and nowhere else, is not
// replaced by what is not added to it.
func TestDeliverKeepsWhatIsPublished(t *testing.T) {
	const url = "GOROCM_APT_URL=https://example.org/apt"
	key := openPGPKey(t)
	published := []string{commandName, inReleaseFile, releaseFile, filepath.Join(proxyDir, "m/@v/list")}
	for name, tc := range map[string]struct {
		environ []string
		build   bool // and no release
		refused bool
	}{
		"a build":                        {build: true, refused: true},
		"a release without a key":        {refused: true},
		"an unsigned release":            {environ: []string{"GOROCM_APT_UNSIGNED=true", url}, refused: true},
		"a signed release":               {environ: []string{"GOROCM_APT_KEY=" + key, url, "GOROCM_MAINTAINER=A <a@example.org>"}},
		"a build, published elsewhere":   {environ: []string{"GOROCM_PUBLISHED=served"}, build: true},
		"a build, published in the same": {environ: []string{"GOROCM_PUBLISHED=dist"}, build: true, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := inTree(t, tc.environ...)
			for _, file := range published {
				put(t, filepath.Join(root, "dist", file), "of before")
			}
			put(t, filepath.Join(root, "served", aptDir, "dists"), "")
			lasting, files := s.lasting(), published
			if tc.build {
				lasting, files = nil, []string{commandName}
			}
			began := false
			err := s.deliver(t.Context(), lasting, func(context.Context, *delivery) error { began = true; return nil }, writes(t, files...))
			if tc.refused {
				if !errors.Is(err, errLost) || began {
					t.Errorf("built %t, %v", began, err)
				}
				if err := s.clean(root); !errors.Is(err, errLost) {
					t.Errorf("clean: %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if got := contentOf(t, filepath.Join(root, "dist", commandName)); (got == "of before") != tc.refused {
				t.Errorf("the delivery is %q", got)
			}
		})
	}
	t.Run("a release that comes out without it", func(t *testing.T) {
		s, root := inTree(t)
		put(t, filepath.Join(root, "dist", inReleaseFile), "of before")
		put(t, filepath.Join(root, "dist", commandName), "of before")
		if err := s.deliver(t.Context(), []string{inReleaseFile}, writes(t, commandName)); !errors.Is(err, errLost) {
			t.Errorf("got %v", err)
		}
	})
}

// What cannot be read, or is not there, is not taken for nothing.
func TestPublishedIsThere(t *testing.T) {
	for name, at := range map[string]string{"no such": "no/such", "a file": "file", "a loop of links": "loop", "another folder": "other"} {
		t.Run(name, func(t *testing.T) {
			s, root := inTree(t, "GOROCM_PUBLISHED="+at)
			put(t, filepath.Join(root, "file"), "")
			put(t, filepath.Join(root, "other", "www", aptDir, "x"), "")
			if err := os.Symlink("loop", filepath.Join(root, "loop")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.published(root); err == nil || !strings.Contains(err.Error(), "GOROCM_PUBLISHED: ") || !strings.Contains(err.Error(), "mage publish") {
				t.Errorf("got %v", err)
			}
		})
	}
	s, root := inTree(t, "GOROCM_PUBLISHED=served")
	put(t, filepath.Join(root, "served", aptDir), "a file in the place of the folder")
	if _, err := s.publishedIn(root, aptDir); err == nil || !strings.Contains(err.Error(), "is not a folder") {
		t.Errorf("got %v", err)
	}
	if dir, err := s.publishedIn(root, proxyDir); err != nil || dir != "" {
		t.Errorf("without modules: %q, %v", dir, err)
	}
}
