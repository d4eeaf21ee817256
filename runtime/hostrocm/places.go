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

// EnvPath names a folder of ROCm to take before all others.
const EnvROCmPath = "ROCM_PATH"

// maxCache bounds the loader's cache in bytes; those of large installations
// have some hundred KiB.
const maxCache = 64 << 20

// FS reads a machine's files below a root.
type FS struct{ root string }

// NewFS reads below root, which stands for "/".
func NewFS(root string) FS {
	if root == "/" {
		root = ""
	}
	return FS{root: root}
}

// place is one installation of ROCm.
type place struct {
	name    string   // for messages
	dir     string   // of ROCm itself, empty for the system's folders
	folders []string // with libraries, in order
}

// system is how the place that is no folder of ROCm's own is called.
const system = "the system's library folders"

// layout is where a machine keeps its libraries.
type layout struct {
	places []place
	cache  []LoaderCacheEntry
	search []string // folders that the loader looks into by itself
	notes  []string
}

// layout looks where libraries may be. What cannot be read becomes a note: there
// may be enough without it.
func (f FS) layout(environ []string) layout {
	l := layout{}
	l.readCache(f)
	seen := map[string]bool{}
	add := func(dir string) {
		p := place{name: dir, dir: dir}
		for _, sub := range []string{"lib", "lib64"} {
			inside, ok := f.folder(path.Join(dir, sub))
			if ok && !seen[inside] {
				seen[inside] = true
				p.folders = append(p.folders, path.Join(dir, sub))
			}
		}
		if len(p.folders) > 0 {
			l.places = append(l.places, p)
		}
	}
	if dir := getenv(environ, EnvROCmPath); dir != "" {
		if why := unusablePath(dir); why != "" {
			l.notes = append(l.notes, fmt.Sprintf("%s=%s is not used: %s", EnvROCmPath, dir, why))
		} else {
			add(path.Clean(dir))
		}
	}
	add("/opt/rocm")
	for _, dir := range f.versions("/opt", "rocm-") {
		add(dir)
	}
	add("/opt/rocm/core")
	for _, dir := range f.versions("/opt/rocm", "core-") {
		add(dir)
	}
	for _, e := range l.cache {
		if dir := path.Dir(e.Path); unusablePath(dir) == "" && !slices.Contains(l.search, dir) {
			l.search = append(l.search, dir)
		}
	}
	for _, dir := range elfdep.DefaultSearchPaths() {
		if !slices.Contains(l.search, dir) {
			l.search = append(l.search, dir)
		}
	}
	l.places = append(l.places, place{name: system})
	return l
}

func (l *layout) readCache(f FS) {
	const name = "/etc/ld.so.cache"
	b, err := f.read(name, maxCache)
	if err == nil {
		l.cache, err = ParseLoaderCache(b)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.notes = append(l.notes, fmt.Sprintf("%s is not used: %v; make it anew with ldconfig", name, err))
	}
}

// unusablePath says why a folder cannot stand in a library path, empty where it
// can: the loader parts it at colons and semicolons and replaces $ORIGIN.
func unusablePath(dir string) string {
	switch {
	case !path.IsAbs(dir):
		return "it is no absolute path"
	case strings.ContainsAny(dir, ":;$"):
		return "the loader cannot be told a path with a colon, a semicolon or a dollar sign"
	}
	return ""
}

// folder resolves a path that must be a folder.
func (f FS) folder(name string) (inside string, ok bool) {
	inside, host, err := elfdep.Resolve(f.root, name)
	if err != nil {
		return "", false
	}
	info, err := os.Stat(host)
	return inside, err == nil && info.IsDir()
}

// file tells whether a path is a file, links followed.
func (f FS) file(name string) bool {
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

// names lists a folder, nothing where it cannot be read.
func (f FS) names(dir string) []string {
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

// versions lists the folders of dir that begin with prefix, the newest first.
func (f FS) versions(dir, prefix string) []string {
	var found []string
	for _, name := range f.names(dir) {
		if v, ok := strings.CutPrefix(name, prefix); ok && v != "" && unusablePath(path.Join(dir, name)) == "" {
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
