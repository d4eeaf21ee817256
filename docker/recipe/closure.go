package recipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// loaderName is the program that starts everything in a hermetic bundle.
const loaderName = "ld-linux-x86-64.so.2"

// libraries is the whole user space that a bundle's files need.
type libraries struct {
	all      []elfdep.Lib
	libs     []elfdep.Lib // those of all that come from the image
	needed   map[string][]string
	excluded []elfdep.Verdict
}

// resolve computes the closure of the files in stage inside the image, and copies
// every library of it, as well as those that they open by name, into root.
func (r *Recipe) resolve(ctx context.Context, root *rootfs, v Variant, stageDir string, rocm string) (*libraries, error) {
	staged, err := elfFiles(stageDir)
	if err != nil {
		return nil, err
	}
	search := elfdep.DefaultSearchPaths()
	if rocm != "" && rocm != "/usr" {
		search = append([]string{rocm + "/lib"}, search...)
	}
	loader, err := root.fetch(ctx, "/lib64/"+loaderName)
	if err != nil {
		return nil, fmt.Errorf("the image's loader: %w", err)
	}
	roots := append(slices.Clip(staged), "/lib64/"+filepath.Base(loader))
	return r.complete(ctx, root, v, roots, elfdep.Options{Root: root.dir, Stage: []string{stageDir}, SearchPaths: search})
}

// complete computes the closure of roots, with what its libraries open by name.
func (r *Recipe) complete(ctx context.Context, root *rootfs, v Variant, roots []string, opts elfdep.Options) (*libraries, error) {
	decisions, err := elfdep.Reviewed()
	if err != nil {
		return nil, err
	}
	for _, m := range moduleDecisions(v) {
		decisions = append(decisions, m.Opened...)
	}
	for {
		libs, err := r.closureWithMissing(ctx, root, roots, opts)
		if err != nil {
			return nil, err
		}
		byName := map[string]bool{}
		var candidates []elfdep.Candidate
		for _, l := range libs {
			byName[l.SONAME] = true
			names, err := elfdep.OpenedNames(l.Path)
			if err != nil {
				return nil, err
			}
			candidates = append(candidates, names...)
		}
		add, excluded, err := elfdep.Review(candidates, decisions, func(soname string) bool { return byName[soname] })
		if err != nil {
			return nil, err
		}
		if len(add) == 0 {
			return newLibraries(libs, excluded), nil
		}
		for _, v := range add {
			p, err := root.find(ctx, v.Candidate.Name, opts.SearchPaths)
			if err != nil {
				return nil, fmt.Errorf("%s is opened by %s at run time: %w", v.Candidate.Name, v.Candidate.In, err)
			}
			if slices.Contains(roots, p) {
				return nil, fmt.Errorf("%s was found as %s, which has another SONAME", v.Candidate.Name, p)
			}
			roots = append(roots, p)
		}
	}
}

// closureWithMissing computes a closure, fetching what it finds missing.
func (r *Recipe) closureWithMissing(ctx context.Context, root *rootfs, roots []string, opts elfdep.Options) ([]elfdep.Lib, error) {
	for {
		libs, err := elfdep.Closure(roots, opts)
		missing := missingLibraries(err)
		if len(missing) == 0 {
			return libs, err
		}
		for _, m := range missing {
			if _, e := root.find(ctx, m.Name, append(m.Searched, opts.SearchPaths...)); e != nil {
				if errors.Is(e, engine.ErrNotExist) {
					return nil, m
				}
				return nil, e
			}
		}
	}
}

// find fetches the first file of that name in dirs and returns its path in the
// image.
func (r *rootfs) find(ctx context.Context, name string, dirs []string) (string, error) {
	for _, d := range dirs {
		if strings.HasPrefix(d, r.dir) {
			continue // a directory of this machine: already looked at
		}
		p := path.Join(d, name)
		_, err := r.fetch(ctx, p)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, engine.ErrNotExist) {
			return "", err
		}
	}
	return "", fmt.Errorf("%w: %s in %s", engine.ErrNotExist, name, strings.Join(dirs, ", "))
}

// missingLibraries picks the missing ones out of a joined error; nil when
// there is another error among them.
func missingLibraries(err error) []*elfdep.MissingError {
	var joined interface{ Unwrap() []error }
	var one *elfdep.MissingError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &joined):
		var all []*elfdep.MissingError
		for _, e := range joined.Unwrap() {
			part := missingLibraries(e)
			if len(part) == 0 {
				return nil
			}
			all = append(all, part...)
		}
		return all
	case errors.As(err, &one):
		return []*elfdep.MissingError{one}
	}
	return nil
}

func newLibraries(libs []elfdep.Lib, excluded []elfdep.Verdict) *libraries {
	out := &libraries{all: libs, needed: map[string][]string{}, excluded: excluded}
	for _, l := range libs {
		out.needed[l.SONAME] = l.Needed
		if l.InRoot != "" {
			out.libs = append(out.libs, l)
		} else {
			out.needed[filepath.Base(l.Path)] = l.Needed
		}
	}
	return out
}

// elfFiles lists the ELF files of a flat directory.
func elfFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && (strings.Contains(e.Name(), ".so") || e.Name() == serverName) {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, nil
}
