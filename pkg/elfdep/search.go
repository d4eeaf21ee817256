package elfdep

import (
	"path"
	"path/filepath"
	"strings"
)

// find looks for name as ld.so(8) describes: a name with a slash is a path;
// else DT_RPATH of the file and of those that needed it (only where the
// file has no DT_RUNPATH), the library path, DT_RUNPATH, the configured
// directories.
func (w *walker) find(name string, by *node) (*node, []string, error) {
	if strings.Contains(name, "/") {
		n, err := w.try(name, by)
		return n, []string{path.Dir(name)}, err
	}
	var searched []string
	for _, p := range w.places(by) {
		searched = append(searched, p.dir)
		var n *node
		var err error
		if p.host {
			n, err = w.tryHost(filepath.Join(p.dir, name), by)
		} else {
			n, err = w.try(path.Join(p.dir, name), by)
		}
		if n != nil || err != nil {
			return n, searched, err
		}
	}
	return nil, searched, nil
}

// place is a directory to search, inside the root or on this machine.
type place struct {
	dir  string
	host bool
}

func (w *walker) places(by *node) []place {
	var out []place
	for _, s := range w.o.Stage {
		out = append(out, place{s, true})
	}
	if len(by.obj.runpath) == 0 {
		for p := by; p != nil; p = p.parent {
			if len(p.obj.runpath) == 0 {
				out = append(out, p.expand(p.obj.rpath)...)
			}
		}
	}
	for _, d := range w.o.LibraryPaths {
		out = append(out, place{d, false})
	}
	out = append(out, by.expand(by.obj.runpath)...)
	for _, d := range w.o.SearchPaths {
		out = append(out, place{d, false})
	}
	return out
}

// expand replaces the tokens of ld.so(8) in RPATH or RUNPATH entries. Those
// that begin at a file of Stage are on this machine, all others in the root.
func (n *node) expand(entries []string) []place {
	tokens := strings.NewReplacer(
		"${ORIGIN}", n.dir, "$ORIGIN", n.dir,
		"${LIB}", "lib/x86_64-linux-gnu", "$LIB", "lib/x86_64-linux-gnu",
		"${PLATFORM}", "x86_64", "$PLATFORM", "x86_64",
	)
	var out []place
	for _, e := range entries {
		fromHere := strings.HasPrefix(e, "$ORIGIN") || strings.HasPrefix(e, "${ORIGIN}")
		out = append(out, place{dir: tokens.Replace(e), host: fromHere && n.lib.InRoot == ""})
	}
	return out
}

func (w *walker) try(name string, by *node) (*node, error) {
	inside, host, err := w.root.resolve(name)
	if err != nil {
		if isMissing(err) {
			return nil, nil // not here, look on
		}
		return nil, err
	}
	return w.open(host, inside, by, false)
}

func (w *walker) tryHost(name string, by *node) (*node, error) {
	host, err := filepath.EvalSymlinks(name)
	if err != nil {
		if isMissing(err) {
			return nil, nil // not here, look on
		}
		return nil, err
	}
	return w.open(host, "", by, false)
}
