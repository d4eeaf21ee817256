package build

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/semver"

	"forge.lthn.ai/core/go-rocm/internal/build/settings"
)

// An adapter is published with the main module, unless the release is older than what
// the adapter requires.
func TestAdaptersArePublished(t *testing.T) {
	for version, published := range map[string]bool{"v0.1.0": true, "v0.2.0-rc.1": true, "v0.1.0-beta.1": false} {
		t.Run(version, func(t *testing.T) {
			s, d := newSession(t)
			var log bytes.Buffer
			s.Out = &log
			d.version = version
			commitModule(t, d.root)
			for _, dir := range adapterDirs {
				writeFile(t, filepath.Join(d.root, dir, "go.mod"), "module "+path.Join(modulePath, dir)+"\n\ngo 1.25.0\n\nrequire "+modulePath+" v0.1.0-plain\n\nreplace "+modulePath+" => ../..\n")
				writeFile(t, filepath.Join(d.root, dir, "a.go"), "package a\n")
			}
			runGit(t, d.root, "add", "contrib")
			if err := s.moduleInto(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			for _, dir := range adapterDirs {
				at := filepath.Join(d.dir, proxyDir, modulePath, dir, "@v")
				if exists(filepath.Join(at, version+".zip")) != published || exists(filepath.Join(at, "list")) != published {
					t.Errorf("%s is published: %t, want %t", dir, !published, published)
				}
				if said := strings.Contains(log.String(), "module "+dir+": omitted"); said == published {
					t.Errorf("the log says that %s is omitted: %t\n%s", dir, said, &log)
				}
				if !published {
					continue
				}
				if mod, want := readFile(t, filepath.Join(at, version+".mod")), readFile(t, filepath.Join(d.root, dir, "go.mod")); mod != want {
					t.Errorf("%s: the published go.mod differs from the one in git:\n%s", dir, mod)
				}
			}
		})
	}
}

// The adapters of a release require that release: the form that git can have, too.
func TestAdaptersRequireTheNewestVersion(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	want := "v" + string(changelogVersion.FindSubmatch(text)[1])
	if semver.Prerelease(want) == "" {
		want += settings.PlainSuffix
	}
	for _, dir := range adapterDirs {
		name := filepath.Join(root, dir, "go.mod")
		mod, err := modfile.Parse(name, []byte(readFile(t, name)), nil)
		if err != nil {
			t.Fatal(err)
		}
		if mod.Module.Mod.Path != path.Join(modulePath, dir) {
			t.Errorf("%s is module %s", dir, mod.Module.Mod.Path)
		}
		have := ""
		for _, r := range mod.Require {
			if r.Mod.Path == modulePath {
				have = r.Mod.Version
			}
		}
		if have != want {
			t.Errorf("%s requires %s %q, want %s: the newest version of CHANGELOG.md", name, modulePath, have, want)
		}
	}
}

// The workspace joins all modules of the checkout: in the directory of a module that is
// missing from it, the go command fails.
func TestWorkspaceListsEveryModule(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	work, err := modfile.ParseWork("go.work", []byte(readFile(t, filepath.Join(root, "go.work"))), nil)
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, u := range work.Use {
		listed = append(listed, path.Clean(u.Path))
	}
	var found []string
	err = filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && (e.Name() == "testdata" || e.Name() == "dist" || strings.HasPrefix(e.Name(), ".") && name != root) {
			return fs.SkipDir
		}
		if e.Name() == "go.mod" {
			dir, err := filepath.Rel(root, filepath.Dir(name))
			found = append(found, filepath.ToSlash(dir))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(listed)
	slices.Sort(found)
	if !slices.Equal(listed, found) {
		t.Errorf("go.work lists %q, the checkout has %q", listed, found)
	}
}
