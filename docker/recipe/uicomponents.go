package recipe

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// pageComponent is a part of the web page from another project, with its terms.
type pageComponent struct {
	Name      string `json:"name"`
	Version   string `json:"version"`
	PURL      string `json:"purl"`                // https://github.com/package-url/purl-spec
	Integrity string `json:"integrity,omitempty"` // as in package-lock.json
	// Licence is what the package itself declares: an SPDX expression, or "".
	Licence string     `json:"licence,omitempty"`
	Texts   []pageText `json:"texts"`
}

type pageText struct {
	Name string `json:"name"`
	Body string `json:"body"`
}

// uiLinked reports whether parts of a package get into the page without being modules
// that rollup reads: the style sheets and plugins that Tailwind reads, and the helpers
// that vite and its plugin add.
func uiLinked(name string) bool {
	return slices.Contains([]string{"tailwindcss", "@tailwindcss/forms", "@tailwindcss/typography", "tw-animate-css", "vite", "vite-plugin-pwa"}, name)
}

// writePageComponents writes the list of what is in the page: llama.cpp's own code, the
// libraries in its source, the packages of whose files rollup read at least one, and
// those of uiLinked. That may be more than what remains in the page: rollup leaves out
// code that nothing calls.
func writePageComponents(dir, source, files string, lock *npmLock, from Lock) error {
	modules, err := os.Open(filepath.Join(dir, pageModulesFile))
	if err != nil {
		return err
	}
	packages, err := pagePackages(modules, lock)
	if err := errors.Join(err, modules.Close()); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(dir, pageModulesFile)); err != nil {
		return err
	}
	purl := "pkg:github/ggml-org/llama.cpp@" + url.PathEscape(from.Tag)
	own := pageComponent{Name: "llama.cpp (web page)", Version: from.Tag, PURL: purl + "#" + uiDir}
	if own.Texts, err = licencesBelow(source); err != nil {
		return err
	}
	all := []pageComponent{own}
	vendors := path.Join(uiDir, "src/lib/vendors")
	entries, err := os.ReadDir(filepath.Join(source, vendors))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		c := pageComponent{Name: e.Name(), Version: from.Tag, PURL: purl + "#" + path.Join(vendors, e.Name())}
		if c.Texts, err = licencesBelow(filepath.Join(source, vendors, e.Name())); err != nil {
			return err
		}
		all = append(all, c)
	}
	for _, p := range packages {
		c, err := p.component(files)
		if err != nil {
			return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
		}
		if !slices.ContainsFunc(all, func(o pageComponent) bool { return o.PURL == c.PURL }) { // two directories have the same package
			all = append(all, c)
		}
	}
	for _, c := range all {
		if len(c.Texts) == 0 {
			return fmt.Errorf("%s %s has no licence text, and is in the web page", c.Name, c.Version)
		}
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	name := filepath.Join(dir, pageComponentsFile)
	if err := os.WriteFile(name, append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Chmod(name, 0o644) // whatever the umask: the mode is part of the stage's digest
}

// pagePackages returns the packages with the modules that r lists, one a line, and those
// of uiLinked, sorted by directory.
func pagePackages(r io.Reader, lock *npmLock) ([]*npmPackage, error) {
	used := map[string]*npmPackage{}
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		id, _, _ := strings.Cut(sc.Text(), "?")
		_, file, ok := strings.Cut(id, "/src/"+nodeModules+"/")
		if !ok {
			continue // of the page itself, or virtual
		}
		dir := path.Join(nodeModules, file)
		for dir != nodeModules && lock.Packages[dir] == nil {
			dir = path.Dir(dir)
		}
		if dir == nodeModules {
			if !slices.ContainsFunc(uiOmitted, func(name string) bool { return strings.HasPrefix(file, name+"/") }) {
				return nil, fmt.Errorf("the web page has the module %s, which belongs to no package of package-lock.json", file)
			}
			continue
		}
		used[dir] = lock.Packages[dir]
	}
	if err := sc.Err(); err != nil {
		return nil, err
	}
	if len(used) == 0 {
		return nil, errors.New("the list of the web page's modules names no package")
	}
	for dir, p := range lock.Packages {
		if dir != "" && uiLinked(p.Name) {
			used[dir] = p
		}
	}
	var list []*npmPackage
	for _, p := range used {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *npmPackage) int { return strings.Compare(a.Dir, b.Dir) })
	return list, nil
}

// uiLicenceName matches the usual names of licences and notices in npm packages.
var uiLicenceName = regexp.MustCompile(`(?i)^((un)?licen[cs]e|copying|copyright|notice)([-_.].*)?$`)

// licencesBelow returns the licence files in a directory.
func licencesBelow(dir string) ([]pageText, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var texts []pageText
	for _, e := range entries {
		if !e.Type().IsRegular() || !uiLicenceName.MatchString(e.Name()) {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, pageText{e.Name(), string(b)})
	}
	return texts, nil
}

// maxLicence limits a licence file of a package, in bytes.
const maxLicence = 1 << 20

// component returns the package with its licence files. Some packages contain none:
// their authors declare the terms in package.json alone, which is then the text.
func (p *npmPackage) component(files string) (pageComponent, error) {
	c := pageComponent{Name: p.Name, Version: p.Version, PURL: npmPURL(p.Name, p.Version), Integrity: p.Integrity}
	c.Licence, _ = p.Licence.(string)
	var description struct {
		License    any `json:"license"`
		Author     any `json:"author"`
		Repository any `json:"repository"`
	}
	err := p.walk(files, func(name string, _ *tar.Header, r io.Reader) error {
		licence := !strings.Contains(name, "/") && uiLicenceName.MatchString(name)
		if !licence && name != "package.json" {
			return nil
		}
		b, err := io.ReadAll(io.LimitReader(r, maxLicence))
		if err != nil {
			return err
		}
		if licence {
			c.Texts = append(c.Texts, pageText{name, string(b)})
			return nil
		}
		return json.Unmarshal(b, &description)
	})
	if err != nil {
		return c, err
	}
	slices.SortFunc(c.Texts, func(a, b pageText) int { return strings.Compare(a.Name, b.Name) })
	if len(c.Texts) == 0 && description.License != nil {
		b, err := json.MarshalIndent(description, "", " ")
		if err != nil {
			return c, err
		}
		c.Texts = []pageText{{"package.json", "The package contains no licence text. Its package.json says:\n" + string(b) + "\n"}}
	}
	return c, nil
}

// npmPURL returns the package URL of an npm package.
func npmPURL(name, version string) string {
	return "pkg:npm/" + strings.Replace(name, "@", "%40", 1) + "@" + url.PathEscape(version)
}
