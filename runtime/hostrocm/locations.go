package hostrocm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// EnvROCmPath is the variable with the directory of the ROCm installation to prefer.
const EnvROCmPath = "ROCM_PATH"

// maxLoaderCache limits the loader's cache in bytes; that of a large installation
// has some hundred KiB.
const maxLoaderCache = 64 << 20

// FS reads a machine's files below a root.
type FS struct{ root string }

// NewFS returns an FS that reads below root, which represents "/".
func NewFS(root string) FS {
	if root == "/" {
		root = ""
	}
	return FS{root: root}
}

// location is one installation of ROCm.
type location struct {
	name string   // for messages
	dir  string   // of ROCm itself, empty for the system's directories
	dirs []string // with the libraries, in order
}

// systemLocation is the name of the location without a directory of its own.
const systemLocation = "the system's library directories"

// layout describes where a machine has its libraries.
type layout struct {
	locations  []location
	cache      []LoaderCacheEntry
	searchDirs []string // directories that the loader searches by itself
	notes      []string
}

// readLayout finds the directories of libraries. It notes what it cannot read, since
// the rest may be sufficient.
func (f FS) readLayout(environ []string) layout {
	l := layout{}
	l.readCache(f)
	seen := map[string]bool{}
	add := func(dir string) {
		p := location{name: dir, dir: dir}
		for _, sub := range []string{"lib", "lib64"} {
			inside, ok := f.resolveDir(path.Join(dir, sub))
			if ok && !seen[inside] {
				seen[inside] = true
				p.dirs = append(p.dirs, path.Join(dir, sub))
			}
		}
		if len(p.dirs) > 0 {
			l.locations = append(l.locations, p)
		}
	}
	if dir := getenv(environ, EnvROCmPath); dir != "" {
		if why := pathProblem(dir); why != "" {
			l.notes = append(l.notes, fmt.Sprintf("%s=%s is ignored: %s", EnvROCmPath, dir, why))
		} else {
			add(path.Clean(dir))
		}
	}
	add("/opt/rocm")
	for _, dir := range f.versionDirs("/opt", "rocm-") {
		add(dir)
	}
	add("/opt/rocm/core")
	for _, dir := range f.versionDirs("/opt/rocm", "core-") {
		add(dir)
	}
	for _, e := range l.cache {
		if dir := path.Dir(e.Path); pathProblem(dir) == "" && !slices.Contains(l.searchDirs, dir) {
			l.searchDirs = append(l.searchDirs, dir)
		}
	}
	for _, dir := range elfdep.DefaultSearchPaths() {
		if !slices.Contains(l.searchDirs, dir) {
			l.searchDirs = append(l.searchDirs, dir)
		}
	}
	l.locations = append(l.locations, location{name: systemLocation})
	return l
}

func (l *layout) readCache(f FS) {
	const name = "/etc/ld.so.cache"
	b, err := f.read(name, maxLoaderCache)
	if err == nil {
		l.cache, err = ParseLoaderCache(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.notes = append(l.notes, fmt.Sprintf("%s is ignored: %v; run ldconfig to write it again", name, err))
	}
}

// pathProblem returns why a directory cannot be part of a library path, empty if it
// can: the loader splits the path at colons and semicolons and replaces $ORIGIN.
func pathProblem(dir string) string {
	switch {
	case !path.IsAbs(dir):
		return "it is not an absolute path"
	case strings.ContainsAny(dir, ":;$"):
		return "the loader does not accept a path with a colon, a semicolon or a dollar sign"
	}
	return ""
}

// resolveDir resolves the path of a directory.
func (f FS) resolveDir(name string) (inside string, ok bool) {
	inside, host, err := elfdep.Resolve(f.root, name)
	if err != nil {
		return "", false
	}
	info, err := os.Stat(host)
	return inside, err == nil && info.IsDir()
}

// isFile reports whether a path leads to a regular file.
func (f FS) isFile(name string) bool {
	_, host, err := elfdep.Resolve(f.root, name)
	if err != nil {
		return false
	}
	info, err := os.Stat(host)
	return err == nil && info.Mode().IsRegular()
}

// read reads a file of at most limit bytes.
func (f FS) read(name string, limit int64) ([]byte, error) {
	_, host, err := elfdep.Resolve(f.root, name)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Clean(host))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it is larger than %d bytes", limit)
	}
	return b, err
}

// listDir returns the names in a directory, none if it cannot be read.
func (f FS) listDir(dir string) []string {
	_, host, err := elfdep.Resolve(f.root, dir)
	if err != nil {
		return nil
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return nil
	}
	out := make([]string, len(entries))
	for i, e := range entries {
		out[i] = e.Name()
	}
	return out
}

// versionDirs returns the directories in dir that start with prefix, the newest
// first.
func (f FS) versionDirs(dir, prefix string) []string {
	var found []string
	for _, name := range f.listDir(dir) {
		if v, ok := strings.CutPrefix(name, prefix); ok && v != "" && pathProblem(path.Join(dir, name)) == "" {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b string) int {
		if c := compareVersions(b, a); c != 0 {
			return c
		}
		return strings.Compare(b, a)
	})
	for i, v := range found {
		found[i] = path.Join(dir, prefix+v)
	}
	return found
}

func getenv(environ []string, name string) string {
	value := ""
	for _, e := range environ {
		if rest, ok := strings.CutPrefix(e, name+"="); ok {
			value = rest
		}
	}
	return value
}
