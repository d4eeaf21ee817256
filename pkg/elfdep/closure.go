package elfdep

import (
	"debug/elf"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Options are where Closure looks.
type Options struct {
	// Root is a directory that is used as "/" (an unpacked image); "" is the machine's own
	// root.
	Root string
	// Stage are directories of this machine, outside Root, whose files are
	// preferred to those of Root: what a build just made.
	Stage []string
	// SearchPaths are directories inside Root in the order in which the loader's
	// cache would list them; nil means DefaultSearchPaths(). Their
	// glibc-hwcaps subfolders, for newer processors only, are left aside: what
	// is found must run on every processor.
	SearchPaths []string
	// LibraryPaths are directories inside Root searched before DT_RUNPATH, as
	// LD_LIBRARY_PATH is.
	LibraryPaths []string
	// Stop names libraries that are neither looked for nor followed, such as
	// those that a flavour leaves to the host.
	Stop []string
}

// DefaultSearchPaths lists the directories that the loader of Debian and Ubuntu
// for amd64 searches without configuration.
func DefaultSearchPaths() []string {
	return []string{
		"/usr/local/lib", "/usr/local/lib/x86_64-linux-gnu",
		"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu",
		"/lib64", "/usr/lib64", "/lib", "/usr/lib",
	}
}

// Lib is one member of a closure.
type Lib struct {
	SONAME   string   // DT_SONAME, else the file's name
	Path     string   // on this machine, links resolved
	InRoot   string   // the same inside Root; "" for a file of Stage
	NeededBy []string // SONAMEs of those that name it, sorted; empty for a root
	Needed   []string // its DT_NEEDED, in order
	Interp   string   // program interpreter; "" for libraries
	Runpath  []string // DT_RUNPATH and DT_RPATH as written
	Versions []VersionNeed
	Size     int64 // bytes
}

// Requires returns the highest version of a prefix that the file requires,
// such as "GLIBC_2.38" for "GLIBC", or "".
func (l Lib) Requires(prefix string) string {
	best := ""
	for _, v := range l.Versions {
		for _, name := range v.Versions {
			p, n, ok := strings.Cut(name, "_")
			if ok && p == prefix && n != "PRIVATE" && !strings.HasPrefix(n, "ABI") && (best == "" || CompareVersions(name, best) > 0) {
				best = name
			}
		}
	}
	return best
}

// MissingError names a library that was found nowhere and the file that needs
// it.
type MissingError struct {
	Name     string
	NeededBy string   // path inside the root (or of the stage file)
	Searched []string // directories, in order
}

// Error implements error.
func (e *MissingError) Error() string {
	return fmt.Sprintf("library %s, needed by %s, is in none of %s; install the package that has it or add its directory",
		e.Name, e.NeededBy, strings.Join(e.Searched, ", "))
}

// node is a found file on its way through the closure.
type node struct {
	lib    Lib
	obj    *object
	parent *node // whose DT_NEEDED found it first; DT_RPATH is inherited
	dir    string
}

type walker struct {
	o       Options
	root    rootFS
	machine elf.Machine
	byName  map[string]*node // by SONAME and by name asked for
	byPath  map[string]*node
	order   []*node
}

// Closure returns the given programs and libraries and everything that the
// loader would load for them, breadth first, so that the order is the loader's
// own. roots are paths inside Options.Root, or of files under Options.Stage.
// All missing libraries are reported at once, each as a *MissingError, and all
// missing symbol versions, each as a *VersionError.
func Closure(roots []string, o Options) ([]Lib, error) {
	if o.SearchPaths == nil {
		o.SearchPaths = DefaultSearchPaths()
	}
	w := &walker{o: o, root: rootFS(o.Root), byName: map[string]*node{}, byPath: map[string]*node{}}
	for _, r := range roots {
		n, err := w.openRoot(r)
		if err != nil {
			return nil, err
		}
		w.byName[n.lib.SONAME] = n
	}
	var missing []error
	for i := 0; i < len(w.order); i++ { // grows while we walk
		errs, err := w.follow(w.order[i])
		if err != nil {
			return nil, err
		}
		missing = append(missing, errs...)
	}
	missing = append(missing, w.checkVersions()...)
	if len(missing) > 0 {
		return nil, joined(missing)
	}
	libs := make([]Lib, len(w.order))
	for i, n := range w.order {
		slices.Sort(n.lib.NeededBy)
		n.lib.NeededBy = slices.Compact(n.lib.NeededBy)
		libs[i] = n.lib
	}
	return libs, nil
}

func (w *walker) openRoot(name string) (*node, error) {
	for _, s := range w.o.Stage {
		if rel, err := filepath.Rel(s, name); err == nil && filepath.IsLocal(rel) {
			host, err := filepath.EvalSymlinks(name)
			if err != nil {
				return nil, err
			}
			return w.open(host, "", nil, true)
		}
	}
	inside, host, err := w.root.resolve(name)
	if err != nil {
		return nil, err
	}
	return w.open(host, inside, nil, true)
}

// open reads the file and adds it, unless it was added before. For a file of another
// machine type it returns (nil, nil) if must is false, because the loader skips such files.
func (w *walker) open(host, inside string, parent *node, must bool) (*node, error) {
	if n, ok := w.byPath[host]; ok {
		return n, nil
	}
	n := &node{parent: parent, dir: path.Dir(inside)}
	if inside == "" {
		n.dir = filepath.Dir(host)
	}
	var machine elf.Machine
	err := WithFile(host, func(f *elf.File, file *os.File) error {
		fi, err := file.Stat()
		if err != nil {
			return err
		}
		machine = f.Machine
		n.lib.Size = fi.Size()
		n.obj, err = readObject(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	if w.machine == elf.EM_NONE {
		w.machine = machine
	}
	if machine != w.machine {
		if must {
			return nil, fmt.Errorf("%s is for %s, the other files for %s", host, machine, w.machine)
		}
		return nil, nil
	}
	o := n.obj
	n.lib.SONAME, n.lib.Path, n.lib.InRoot = o.soname, host, inside
	if o.soname == "" {
		n.lib.SONAME = filepath.Base(host)
	}
	n.lib.Needed, n.lib.Interp, n.lib.Versions = o.needed, o.interp, o.vers
	n.lib.Runpath = slices.Concat(o.rpath, o.runpath)
	w.byPath[host] = n
	w.order = append(w.order, n)
	return n, nil
}

func (w *walker) follow(n *node) (missing []error, err error) {
	names := n.obj.needed
	if n.obj.interp != "" && n.parent == nil { // libc names one too, for when it is run as a program
		names = append(slices.Clip(names), n.obj.interp)
	}
	for _, name := range names {
		if slices.Contains(w.o.Stop, path.Base(name)) {
			continue
		}
		dep, ok := w.byName[name]
		if !ok {
			var searched []string
			dep, searched, err = w.find(name, n)
			if err != nil {
				return nil, err
			}
			if dep == nil {
				missing = append(missing, &MissingError{Name: name, NeededBy: n.where(), Searched: searched})
				continue
			}
			w.byName[name] = dep
			w.byName[dep.lib.SONAME] = dep
		}
		if dep != n {
			dep.lib.NeededBy = append(dep.lib.NeededBy, n.lib.SONAME)
		}
	}
	return missing, nil
}

func (n *node) where() string {
	if n.lib.InRoot != "" {
		return n.lib.InRoot
	}
	return n.lib.Path
}
