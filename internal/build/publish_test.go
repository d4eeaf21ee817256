package build

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/debgen"
	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

func TestModuleVersions(t *testing.T) {
	for version, want := range map[string][2]string{
		"0.1.0+llama.0.5.0":      {"v0.1.0", "v0.1.0-plain"},
		"v0.1.0":                 {"v0.1.0", "v0.1.0-plain"},
		"0.2.0-rc.1+llama.0.5.0": {"v0.2.0-rc.1", ""},
		"0.1":                    {"", ""},
		"latest":                 {"", ""},
	} {
		full, plain, err := moduleVersions(version)
		if full != want[0] || plain != want[1] || (err != nil) != (want[0] == "") {
			t.Errorf("%s: got %q, %q, %v", version, full, plain, err)
		}
	}
}

// newSession returns a session and a delivery with one package.
func newSession(t *testing.T, environ ...string) (*Session, *delivery) {
	t.Helper()
	root := t.TempDir()
	s, err := settings.Parse(append(environ, "GOROCM_CACHE="+filepath.Join(root, "cache"), "GOROCM_MAINTAINER=A. Person <person@example.org>", "SOURCE_DATE_EPOCH=1700000000", "GOROCM_RELEASE_DATE="+strconv.FormatInt(time.Now().Unix()-60, 10)))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := stage.Open(filepath.Join(root, "cache"))
	if err != nil {
		t.Fatal(err)
	}
	d := &delivery{root: root, dir: filepath.Join(root, "dist.part"), version: "0.1.0+llama.0.5.0"}
	if err := os.Mkdir(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	addDeb(t, d, "one")
	return &Session{Settings: s, Recipe: &recipe.Recipe{Cache: cache}, Out: &bytes.Buffer{}}, d
}

func addDeb(t *testing.T, d *delivery, body string) {
	t.Helper()
	p := debgen.Package{Control: debgen.Control("go-rocm", "0.1.0-1"), Files: map[string]string{"usr/bin/go-rocm": body}}
	if _, err := p.Write(d.dir, "go-rocm.deb"); err != nil {
		t.Fatal(err)
	}
}

func TestAptIntoAddsToThePublishedRepository(t *testing.T) {
	said := func(s *Session) string { return s.Out.(*bytes.Buffer).String() } //nolint:errcheck,forcetypeassert // newSession made it

	s, d := newSession(t)
	if err := s.aptInto(t.Context(), d); err != nil || exists(filepath.Join(d.dir, "apt")) || !strings.Contains(said(s), "GOROCM_APT_KEY_FILE") {
		t.Errorf("without a key: %v, said %q", err, said(s))
	}

	s, d = newSession(t, "GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=https://example.org/apt")
	s.Settings.Published = filepath.Join(d.root, "served")
	if err := s.aptInto(t.Context(), d); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "GOROCM_PUBLISHED") {
		t.Errorf("GOROCM_PUBLISHED does not exist: %v", err)
	}
	served := s.Settings.Published
	if err := os.Mkdir(served, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.aptInto(t.Context(), d); err != nil || !strings.Contains(said(s), "NOT signed") {
		t.Fatalf("unsigned: %v, said %q", err, said(s))
	}
	if err := apt.Mirror(t.Context(), filepath.Join(d.dir, "apt"), filepath.Join(served, "apt")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(d.dir, "apt")); err != nil {
		t.Fatal(err)
	}
	if err := s.aptInto(t.Context(), d); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(d.dir, "apt")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(d.dir, "go-rocm.deb")); err != nil {
		t.Fatal(err)
	}
	addDeb(t, d, "two")
	if err := s.aptInto(t.Context(), d); !errors.Is(err, apt.ErrVersionConflict) || !strings.Contains(err.Error(), "CHANGELOG.md") {
		t.Errorf("the same version with other bytes: %v", err)
	}
}

// Settings that cannot yield a trusted repository are rejected before the build.
func TestAptOptionsRejectsBadSettings(t *testing.T) {
	for name, tc := range map[string]struct {
		env  []string
		want string
	}{
		"expired from the start": {[]string{"GOROCM_APT_UNSIGNED=true", "GOROCM_APT_VALID=30s"}, "set GOROCM_RELEASE_DATE"},
		"no key in it":           {[]string{"GOROCM_APT_KEY=hello"}, "GOROCM_APT_KEY: "},
		"a missing file":         {[]string{"GOROCM_APT_KEY_FILE=/nonexistent"}, "GOROCM_APT_KEY_FILE: "},
		"a URL that is none":     {[]string{"GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=here"}, `"here" is not a repository URL`},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := newSession(t, append([]string{"GOROCM_APT_URL=https://example.org/apt"}, tc.env...)...)
			if _, err := s.aptOptions(t.Context(), d.root); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want an error about %q", err, tc.want)
			}
		})
	}
}

func TestPublishToCopiesListedFilesAlone(t *testing.T) {
	s, d := newSession(t, "GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=https://example.org/apt")
	for name, text := range map[string]string{"go.mod": "module " + modulePath + "\n\ngo 1.26\n", "a.go": "package a\n"} {
		if err := os.WriteFile(filepath.Join(d.root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	proxy := filepath.Join(d.dir, proxyDir)
	if err := s.addModule(t.Context(), d, proxy, modulePath, "v0.1.0", d.sourceFiles([]string{"go.mod", "a.go"})); err != nil {
		t.Fatal(err)
	}
	if err := s.aptInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	served := filepath.Join(d.root, "served")
	if err := s.publishTo(t.Context(), d.dir, served); !errors.Is(err, release.ErrChecksums) {
		t.Errorf("without a list of digests: %v", err)
	}
	if err := s.checksumInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(d.dir, "more"), "unlisted")
	if err := s.publishTo(t.Context(), d.dir, served); err == nil || !strings.Contains(err.Error(), "not listed: more") || exists(served) {
		t.Errorf("a file more: %v", err)
	}
	if err := os.Remove(filepath.Join(d.dir, "more")); err != nil {
		t.Fatal(err)
	}
	if err := s.publishTo(t.Context(), d.dir, served); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"goproxy/" + modulePath + "/@v/v0.1.0.zip", "apt/dists/stable/Release"} {
		if _, err := os.Stat(filepath.Join(served, name)); err != nil {
			t.Error(err)
		}
	}
	// The next release includes the earlier versions, and none with other bytes.
	s.Settings.Published = served
	second := &delivery{root: d.root, dir: filepath.Join(d.root, "again"), version: d.version}
	if err := s.addModule(t.Context(), second, filepath.Join(second.dir, proxyDir), modulePath, "v0.2.0", second.sourceFiles([]string{"go.mod", "a.go"})); err == nil {
		t.Error("a module was added to a missing delivery")
	}
	if err := os.Mkdir(second.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.addModule(t.Context(), second, filepath.Join(second.dir, proxyDir), modulePath, "v0.2.0", second.sourceFiles([]string{"go.mod", "a.go"})); err != nil {
		t.Fatal(err)
	}
	if err := s.earlierModulesInto(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(second.dir, proxyDir, modulePath, "@v/list"))
	if err != nil || string(list) != "v0.1.0\nv0.2.0\n" {
		t.Errorf("list: %q, %v", list, err)
	}
	if err := os.WriteFile(filepath.Join(d.root, "a.go"), []byte("package b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	changed := &delivery{root: d.root, dir: filepath.Join(d.root, "changed"), version: d.version}
	if err := os.Mkdir(changed.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.addModule(t.Context(), changed, filepath.Join(changed.dir, proxyDir), modulePath, "v0.1.0", changed.sourceFiles([]string{"go.mod", "a.go"})); err != nil {
		t.Fatal(err)
	}
	if err := s.earlierModulesInto(t.Context(), changed); !errors.Is(err, goproxy.ErrVersionConflict) {
		t.Errorf("a published version with other bytes: %v", err)
	}
}

// The modules are not published if the apt repository is rejected, and vice versa.
func TestPublishIsAllOrNothing(t *testing.T) {
	delivered := func(version, body string, ago time.Duration) (*Session, *delivery) {
		s, d := newSession(t, "GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=https://example.org/apt")
		s.Settings.ReleaseDate = time.Now().Add(-ago).Truncate(time.Second)
		files := commitModule(t, d.root)
		writeFile(t, filepath.Join(d.root, "a.go"), "package a // "+body+"\n")
		if err := errors.Join(s.addModule(t.Context(), d, filepath.Join(d.dir, proxyDir), modulePath, version, d.sourceFiles(files)), s.aptInto(t.Context(), d), s.checksumInto(t.Context(), d)); err != nil {
			t.Fatal(err)
		}
		return s, d
	}
	served := filepath.Join(t.TempDir(), "served")
	s, d := delivered("v0.1.0", "one", 2*time.Hour)
	if err := s.publishTo(t.Context(), d.dir, served); err != nil {
		t.Fatal(err)
	}
	before := treeDigest(t, served)
	checkRejected := func(what string, d *delivery, dir string, want error) {
		t.Helper()
		if err := s.publishTo(t.Context(), d.dir, dir); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
		if treeDigest(t, served) != before {
			t.Errorf("%s: something is published", what)
		}
	}
	_, other := delivered("v0.2.0", "two", time.Hour)
	checkRejected("not based on the published repository", other, served, apt.ErrRepository)
	_, changed := delivered("v0.1.0", "three", 2*time.Hour)
	checkRejected("a module with other bytes", changed, served, goproxy.ErrVersionConflict)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(d.dir, link); err != nil {
		t.Fatal(err)
	}
	checkRejected("onto itself", d, link, apt.ErrOptions)
}
