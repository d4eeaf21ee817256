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
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/packaging/assets"
)

// inCheckout returns a session in a new checkout, which is the current directory.
func inCheckout(t *testing.T, environ ...string) (s *Session, root string) {
	t.Helper()
	root = t.TempDir()
	t.Chdir(root)
	writeFile(t, filepath.Join(root, "go.mod"), "module "+modulePath+"\n")
	set, err := settings.Parse(append(environ, "GOROCM_CACHE="+filepath.Join(root, "cache"), "GOROCM_VERSION=1.0.0", "GOROCM_BASE_IMAGE=none", "CI=false"))
	if err != nil {
		t.Fatal(err)
	}
	return &Session{Settings: set, Recipe: &recipe.Recipe{Lock: recipe.Lock{Tag: "v0"}}, Out: &bytes.Buffer{}}, root
}

// writes returns a step that writes files into a delivery.
func writes(t *testing.T, names ...string) step {
	return func(_ context.Context, d *delivery) error {
		for _, name := range names {
			writeFile(t, filepath.Join(d.dir, name), "new")
		}
		return nil
	}
}

func TestDeliverKeepsThePreviousDeliveryOnFailure(t *testing.T) {
	s, root := inCheckout(t)
	dist := filepath.Join(root, "dist")
	check := func(what, want string) {
		t.Helper()
		if got := readFile(t, filepath.Join(dist, commandName)); got != want {
			t.Errorf("%s: the delivery is %q, want %q", what, got, want)
		}
		for _, mark := range []string{partSuffix, oldSuffix} {
			if exists(dist + mark) {
				t.Errorf("%s: %s was left", what, dist+mark)
			}
		}
	}
	// A failed step keeps the previous delivery.
	writeFile(t, filepath.Join(dist, commandName), "previous")
	differs := errors.New("not reproducible")
	err := s.deliver(t.Context(), nil, writes(t, commandName), func(context.Context, *delivery) error { return differs })
	if !errors.Is(err, differs) {
		t.Errorf("got %v", err)
	}
	check("failed", "previous")
	// A build that was killed between the two renames is undone.
	if err := os.Rename(dist, dist+oldSuffix); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dist+partSuffix, workPrefix+"1", "v1.zip"), "half")
	err = s.deliver(t.Context(), nil, func(context.Context, *delivery) error {
		if got := readFile(t, filepath.Join(dist, commandName)); got != "previous" {
			t.Errorf("during the next build the delivery is %q", got)
		}
		return differs
	})
	if !errors.Is(err, differs) {
		t.Errorf("got %v", err)
	}
	check("interrupted", "previous")
	// A build that was killed after the renames leaves the previous delivery.
	writeFile(t, filepath.Join(dist+oldSuffix, commandName), "older")
	if err := s.deliver(t.Context(), nil, writes(t, commandName)); err != nil {
		t.Fatal(err)
	}
	check("delivered", "new")
	writeFile(t, filepath.Join(dist+oldSuffix, commandName), "previous")
	if err := s.removeDist(root); err != nil || exists(dist) || exists(dist+oldSuffix) {
		t.Errorf("clean: %v", err)
	}
}

// A directory that is not a delivery is neither replaced nor removed.
func TestDeliverRejectsOtherDirectories(t *testing.T) {
	for name, tc := range map[string]struct{ dist, file string }{
		"the checkout":                    {".", "embed/README"},
		"the parent directory":            {"..", "mine"},
		"no command":                      {"out", "out/apt/pool/x.deb"},
		"another file beside the command": {"out", "out/go-rocm.txt"},
		"a hidden directory":              {"out", "out/.git/config"},
		"a file":                          {"out", "out"},
		"the old directory":               {"out", "out.old/mine"},
		"the part directory":              {"out", "out.part/mine"},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := inCheckout(t, "GOROCM_DIST="+tc.dist)
			file := filepath.Join(root, tc.file)
			writeFile(t, file, "mine")
			if strings.Contains(name, "beside the command") || strings.Contains(name, "hidden") {
				writeFile(t, filepath.Join(root, "out", commandName), "program")
			}
			ran := func(context.Context, *delivery) error { t.Error("the build started"); return nil }
			for what, err := range map[string]error{"deliver": s.deliver(t.Context(), nil, ran), "clean": s.removeDist(root)} {
				if !errors.Is(err, errNotDelivery) || !strings.Contains(err.Error(), "GOROCM_DIST") {
					t.Errorf("%s: %v", what, err)
				}
			}
			if got := readFile(t, file); got != "mine" {
				t.Errorf("the file is %q", got)
			}
		})
	}
}

// A step that adds a file of an unknown name fails at once, and not when the next
// delivery rejects the directory.
func TestDeliverRejectsUnknownDeliverables(t *testing.T) {
	s, _ := inCheckout(t)
	if err := s.deliver(t.Context(), nil, writes(t, commandName, "novelty")); !errors.Is(err, errNotDelivery) || !strings.Contains(err.Error(), "novelty") {
		t.Errorf("got %v", err)
	}
}

func TestDeliveryHasMonitoring(t *testing.T) {
	s, root := inCheckout(t)
	if err := s.deliver(t.Context(), nil, writes(t, commandName), s.monitoringInto); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"alerts.yml", "dashboard.json"} {
		want, err := assets.Monitoring.ReadFile("monitoring/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, filepath.Join(root, "dist", "go-rocm-"+name)); got != string(want) {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		}
	}
}

// A dist directory with a trailing slash is replaced, not filled.
func TestDeliverAcceptsATrailingSlash(t *testing.T) {
	s, root := inCheckout(t)
	s.Settings.Dist = filepath.Join(root, "out") + "/"
	for range 2 {
		if err := s.deliver(t.Context(), nil, writes(t, commandName)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(s.Settings.Dist)
	if err != nil || len(entries) != 1 {
		t.Errorf("it contains %v, %v", entries, err)
	}
}

// Releases that are published in the dist directory alone are not replaced by a
// delivery that does not include them.
func TestDeliverKeepsPublishedReleases(t *testing.T) {
	const url = "GOROCM_APT_URL=https://example.org/apt"
	key := openPGPKey(t)
	published := []string{commandName, inReleaseFile, releaseFile, filepath.Join(proxyDir, "m/@v/list")}
	for name, tc := range map[string]struct {
		environ  []string
		build    bool // not a release
		rejected bool
	}{
		"a build":                        {build: true, rejected: true},
		"a release without a key":        {rejected: true},
		"an unsigned release":            {environ: []string{"GOROCM_APT_UNSIGNED=true", url}, rejected: true},
		"a signed release":               {environ: []string{"GOROCM_APT_KEY=" + key, url, "GOROCM_MAINTAINER=A <a@example.org>"}},
		"a build, published elsewhere":   {environ: []string{"GOROCM_PUBLISHED=served"}, build: true},
		"a build, published in the same": {environ: []string{"GOROCM_PUBLISHED=dist"}, build: true, rejected: true},
	} {
		t.Run(name, func(t *testing.T) {
			s, root := inCheckout(t, tc.environ...)
			for _, file := range published {
				writeFile(t, filepath.Join(root, "dist", file), "previous")
			}
			writeFile(t, filepath.Join(root, "served", aptDir, "dists"), "")
			records, files := s.publicationRecords(), published
			if tc.build {
				records, files = nil, []string{commandName}
			}
			started := false
			err := s.deliver(t.Context(), records, func(context.Context, *delivery) error { started = true; return nil }, writes(t, files...))
			if tc.rejected {
				if !errors.Is(err, errWouldLose) || started {
					t.Errorf("started %t, %v", started, err)
				}
				if err := s.removeDist(root); !errors.Is(err, errWouldLose) {
					t.Errorf("clean: %v", err)
				}
			} else if err != nil {
				t.Error(err)
			}
			if got := readFile(t, filepath.Join(root, "dist", commandName)); (got == "previous") != tc.rejected {
				t.Errorf("the delivery is %q", got)
			}
		})
	}
	t.Run("a release whose steps lose it", func(t *testing.T) {
		s, root := inCheckout(t)
		writeFile(t, filepath.Join(root, "dist", inReleaseFile), "previous")
		writeFile(t, filepath.Join(root, "dist", commandName), "previous")
		if err := s.deliver(t.Context(), []string{inReleaseFile}, writes(t, commandName)); !errors.Is(err, errWouldLose) {
			t.Errorf("got %v", err)
		}
	})
}

// A published directory that is missing or unreadable is an error, not "nothing
// published".
func TestPublishedRootRejectsUnreadableDirectories(t *testing.T) {
	for name, at := range map[string]string{"no such": "no/such", "a file": "file", "a loop of links": "loop", "another directory": "other"} {
		t.Run(name, func(t *testing.T) {
			s, root := inCheckout(t, "GOROCM_PUBLISHED="+at)
			writeFile(t, filepath.Join(root, "file"), "")
			writeFile(t, filepath.Join(root, "other", "www", aptDir, "x"), "")
			if err := os.Symlink("loop", filepath.Join(root, "loop")); err != nil {
				t.Fatal(err)
			}
			if _, err := s.publishedRoot(root); err == nil || !strings.Contains(err.Error(), "GOROCM_PUBLISHED: ") || !strings.Contains(err.Error(), "mage publish") {
				t.Errorf("got %v", err)
			}
		})
	}
	s, root := inCheckout(t, "GOROCM_PUBLISHED=served")
	writeFile(t, filepath.Join(root, "served", aptDir), "a file")
	if _, err := s.publishedDir(root, aptDir); err == nil || !strings.Contains(err.Error(), "is not a directory") {
		t.Errorf("got %v", err)
	}
	if dir, err := s.publishedDir(root, proxyDir); err != nil || dir != "" {
		t.Errorf("without modules: %q, %v", dir, err)
	}
}
