package licences

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// FromProgram returns the components that are linked into a Go program: the modules
// in its build information except its own, and Go itself. moduleCache and goRoot
// are the directories that `go env GOMODCACHE` and `go env GOROOT` print.
func FromProgram(command, moduleCache, goRoot string) ([]Component, error) {
	info, err := buildinfo.ReadFile(command)
	if err != nil {
		return nil, fmt.Errorf("read the build information of %s: %w", command, err)
	}
	var out []Component
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		dir, err := moduleDir(moduleCache, dep.Path, dep.Version)
		if err != nil {
			return nil, err
		}
		c := Component{Kind: GoModule, Name: dep.Path, Version: dep.Version, Sum: dep.Sum}
		if c.Texts, err = licenceFiles(dir); err != nil {
			return nil, fmt.Errorf("licence of module %s %s: %w: run `go mod download` and retry", dep.Path, dep.Version, err)
		}
		c.describe()
		out = append(out, c)
	}
	golang := Component{Kind: GoRuntime, Name: "go", Version: strings.TrimPrefix(info.GoVersion, "go")}
	if golang.Texts, err = licenceFiles(goRoot); err != nil {
		return nil, fmt.Errorf("licence of Go: %w: pass the directory that `go env GOROOT` prints", err)
	}
	golang.describe()
	out = append(out, golang)
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}

// moduleDir returns the directory of a module's sources: in the module cache, or
// the directory that replaces the module.
func moduleDir(cache, path, version string) (string, error) {
	if modfile.IsDirectoryPath(path) {
		return filepath.FromSlash(path), nil
	}
	p, err := module.EscapePath(path)
	if err != nil {
		return "", fmt.Errorf("module %s: %w", path, err)
	}
	v, err := module.EscapeVersion(version)
	if err != nil {
		return "", fmt.Errorf("module %s: %w", path, err)
	}
	return filepath.Join(cache, filepath.FromSlash(p)+"@"+v), nil
}

// licenceName matches the usual names of licences and notices.
var licenceName = regexp.MustCompile(`(?i)^(un)?(licen[cs]e|copying|copyright|notice|patents)([-_.].*)?$`)

// licenceFiles reads the licence files in a directory, in the order of their names.
func licenceFiles(dir string) ([]Text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoLicence, err)
	}
	var out []Text
	for _, e := range entries {
		if !e.Type().IsRegular() || !licenceName.MatchString(e.Name()) || strings.HasSuffix(e.Name(), ".go") {
			continue
		}
		t, err := readText(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w in %s", ErrNoLicence, dir)
	}
	return out, nil
}

// readText reads a file as UTF-8, or as Latin-1 if it is not valid UTF-8, as in old
// copyright files.
func readText(path string) (Text, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return Text{}, fmt.Errorf("read licence: %w", err)
	}
	body := string(raw)
	if !utf8.Valid(raw) {
		runes := make([]rune, len(raw))
		for i, b := range raw {
			runes[i] = rune(b)
		}
		body = string(runes)
	}
	body = strings.ReplaceAll(body, "\r\n", "\n")
	return Text{Name: filepath.Base(path), Body: strings.TrimRight(body, "\n") + "\n"}, nil
}

// commonTexts is the directory of licence texts that the components' files refer
// to. It is not a component.
const commonTexts = "common"

// FromBundle returns the components of a bundle. Each directory below
// bundleDir/licenses, except "common", is a component, and every file in it a text.
func FromBundle(bundleDir string) ([]Component, error) {
	root := filepath.Join(bundleDir, "licenses")
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("bundle without licences: %w: %w", ErrNoLicence, err)
	}
	var out []Component
	for _, e := range entries {
		if !e.IsDir() || e.Name() == commonTexts {
			continue
		}
		c := Component{Kind: Bundled, Name: e.Name()}
		err := filepath.WalkDir(filepath.Join(root, e.Name()), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			t, err := readText(path)
			if err != nil {
				return err
			}
			c.Texts = append(c.Texts, t)
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("licences of %s: %w", e.Name(), err)
		}
		if len(c.Texts) == 0 {
			return nil, fmt.Errorf("licences of %s: %w in the bundle", e.Name(), ErrNoLicence)
		}
		c.describe()
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("bundle without licences: %w in %s", ErrNoLicence, root)
	}
	return out, nil
}
