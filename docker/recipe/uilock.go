package recipe

import (
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
)

// npmLock is a package-lock.json in npm's version 3
// (https://docs.npmjs.com/cli/v11/configuring-npm/package-lock-json). The keys of
// Packages are directories below the lock, and "" is the project itself.
type npmLock struct {
	Version  int                    `json:"lockfileVersion"`
	Packages map[string]*npmPackage `json:"packages"`
}

// npmPackage is a package of a lock.
type npmPackage struct {
	Dir       string `json:"-"` // such as node_modules/vite/node_modules/fdir
	Name      string `json:"name"`
	Version   string `json:"version"`
	Resolved  string `json:"resolved"`
	Integrity string `json:"integrity"`
	Licence   any    `json:"license"`

	OS   []string `json:"os"`
	CPU  []string `json:"cpu"`
	Libc []string `json:"libc"`

	Dependencies         map[string]string `json:"dependencies"`
	DevDependencies      map[string]string `json:"devDependencies"`
	OptionalDependencies map[string]string `json:"optionalDependencies"`
	PeerDependencies     map[string]string `json:"peerDependencies"`
	PeerMeta             map[string]struct {
		Optional bool `json:"optional"`
	} `json:"peerDependenciesMeta"`
}

// parseNPMLock reads a lock. Each package must have a name, a source and a SHA-512.
func parseNPMLock(b []byte) (*npmLock, error) {
	l := &npmLock{}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(l); err != nil {
		return nil, fmt.Errorf("package-lock.json: %w", err)
	}
	if l.Version != 3 || l.Packages[""] == nil {
		return nil, fmt.Errorf("package-lock.json has the format %d, and 3 is the one that is understood", l.Version)
	}
	for dir, p := range l.Packages {
		p.Dir = dir
		if dir == "" {
			continue
		}
		if i := strings.LastIndex(dir, nodeModules+"/"); i >= 0 && p.Name == "" {
			p.Name = dir[i+len(nodeModules)+1:]
		}
		if p.Name == "" || path.Clean(dir) != dir || strings.HasPrefix(dir, "..") || path.IsAbs(dir) {
			return nil, fmt.Errorf("package-lock.json: %q is not a directory of a package", dir)
		}
		if _, err := p.tarballPath(); err != nil {
			return nil, err
		}
		if _, err := p.sha512(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// nodeModules is the directory in which Node.js looks for packages.
const nodeModules = "node_modules"

// tarballPath returns the path of the package's file in any npm registry, such as
// "/vite/-/vite-7.3.6.tgz". Registries differ in the part before it.
func (p *npmPackage) tarballPath() (string, error) {
	u, err := url.Parse(p.Resolved)
	if err != nil || u.Scheme != "https" || u.Host == "" || !strings.HasSuffix(u.Path, ".tgz") || u.RawQuery != "" || path.Clean(u.Path) != u.Path {
		return "", fmt.Errorf("package-lock.json: %s %s is not from a registry: %q", p.Name, p.Version, p.Resolved)
	}
	return u.Path, nil
}

// sha512 decodes the digest of the package's file (https://www.w3.org/TR/SRI/).
func (p *npmPackage) sha512() ([]byte, error) {
	text, ok := strings.CutPrefix(p.Integrity, "sha512-")
	sum, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(sum) != sha512.Size {
		return nil, fmt.Errorf("package-lock.json: %s %s has no SHA-512: %q", p.Name, p.Version, p.Integrity)
	}
	return sum, nil
}

// runsInImage reports whether the package is for the container's system: Linux on
// amd64 with glibc. Older entries of a lock name no libc; packages for musl are then
// named by it.
func (p *npmPackage) runsInImage() bool {
	return allowsPlatform(p.OS, "linux") && allowsPlatform(p.CPU, "x64") && allowsPlatform(p.Libc, "glibc") && !strings.HasSuffix(p.Name, "-musl") && !strings.Contains(p.Name, "-linuxmusl-")
}

// allowsPlatform implements npm's lists of systems: an entry with ! excludes one, and
// without such a list every system is allowed.
func allowsPlatform(list []string, have string) bool {
	if slices.Contains(list, "!"+have) {
		return false
	}
	positive := slices.DeleteFunc(slices.Clone(list), func(s string) bool { return strings.HasPrefix(s, "!") })
	return len(positive) == 0 || slices.Contains(positive, have)
}

// resolve returns the package that a package in dir gets for a name: Node.js looks into
// node_modules of dir, and of each directory above it.
func (l *npmLock) resolve(dir, name string) *npmPackage {
	for {
		if p := l.Packages[path.Join(dir, nodeModules, name)]; p != nil {
			return p
		}
		if dir == "" {
			return nil
		}
		i := strings.LastIndex(dir, nodeModules)
		if i < 0 {
			return nil
		}
		dir = strings.TrimSuffix(dir[:i], "/")
	}
}

// needed returns the packages that the project needs in the image, sorted by
// directory: its own dependencies, unless leave matches them, and theirs.
func (l *npmLock) needed(leave func(name string) bool) ([]*npmPackage, error) {
	type edge struct {
		dir, name string
		optional  bool
	}
	var todo []edge
	add := func(dir string, names map[string]string, optional func(string) bool) {
		for name := range names {
			todo = append(todo, edge{dir, name, optional(name)})
		}
	}
	never, always := func(string) bool { return false }, func(string) bool { return true }
	add("", l.Packages[""].Dependencies, never)
	add("", l.Packages[""].DevDependencies, never)
	todo = slices.DeleteFunc(todo, func(e edge) bool { return leave(e.name) })
	found := map[string]*npmPackage{}
	var missing []string
	for len(todo) > 0 {
		e := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		p := l.resolve(e.dir, e.name)
		switch {
		case p == nil && !e.optional:
			missing = append(missing, fmt.Sprintf("%s (of %s)", e.name, path.Base(e.dir)))
			continue
		case p == nil, found[p.Dir] != nil, e.optional && (leave(e.name) || !p.runsInImage()):
			continue
		case !p.runsInImage():
			return nil, fmt.Errorf("package-lock.json: %s %s does not run on Linux on amd64", p.Name, p.Version)
		}
		found[p.Dir] = p
		add(p.Dir, p.OptionalDependencies, always)
		required := maps.Clone(p.Dependencies)
		maps.DeleteFunc(required, func(name, _ string) bool { _, ok := p.OptionalDependencies[name]; return ok })
		add(p.Dir, required, never)
		peers := maps.Clone(p.PeerDependencies)
		maps.DeleteFunc(peers, func(name, _ string) bool { return p.PeerMeta[name].Optional })
		add(p.Dir, peers, never)
	}
	if len(missing) > 0 {
		slices.Sort(missing)
		return nil, fmt.Errorf("package-lock.json lacks %s", strings.Join(missing, ", "))
	}
	if len(found) == 0 {
		return nil, errors.New("package-lock.json lists no package")
	}
	return slices.SortedFunc(maps.Values(found), func(a, b *npmPackage) int { return strings.Compare(a.Dir, b.Dir) }), nil
}
