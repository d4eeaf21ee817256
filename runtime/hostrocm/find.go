package hostrocm

import (
	"errors"
	"path"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/hostlib"
)

// Installation is a ROCm installation that a bundle can use.
type Installation struct {
	// Location is a directory such as /opt/rocm-6.4.1, or a description of the
	// system's own directories.
	Location string
	// Version is the release that the installation states, empty if it states none.
	Version string
	// LibraryDirs are the directories to search after the bundle's own, in this order.
	LibraryDirs []string
	// Libraries are the libraries that will be loaded from the host.
	Libraries []elfdep.Lib
	// KernelDir contains rocBLAS's kernels, KernelTargets are the targets that it has
	// kernels for. Both are empty if no such directory was found.
	KernelDir     string
	KernelTargets []gfx.Target
	// Notes lists what the search skipped.
	Notes []string
}

// finder searches the libraries of one bundle.
type finder struct {
	fs      FS
	layout  layout
	host    *bundle.Host
	bundled []string // the bundle's own libraries
	table   *hostlib.Table
}

// Find searches the ROCm installation for a bundle of the system flavour. environ is
// the environment, as os.Environ returns it. If no installation is suitable, the
// error is an *Error.
func (f FS) Find(m *bundle.Manifest, environ []string) (*Installation, error) {
	if m == nil || m.Host == nil {
		return nil, errors.New("the bundle uses nothing of the host")
	}
	table, err := hostlib.Reviewed()
	if err != nil {
		return nil, err
	}
	s := &finder{fs: f, layout: f.readLayout(environ), host: m.Host, table: table}
	for _, file := range m.Files {
		s.bundled = append(s.bundled, path.Base(file.Path))
	}
	var best *Error
	for _, p := range s.layout.locations {
		found, failed := s.check(p)
		if failed == nil {
			found.Notes = s.layout.notes
			return found, nil
		}
		if best == nil || failed.distance() < best.distance() {
			best = failed
		}
	}
	best.ROCm, best.Notes = m.Host.ROCm, s.layout.notes
	for i := range best.Missing {
		s.addPackages(&best.Missing[i])
	}
	return nil, best
}

// distance returns how far an installation is from the bundle's needs.
func (e *Error) distance() int { return 2*len(e.Missing) + len(e.Broken) }

// check checks one installation as a whole.
func (s *finder) check(p location) (*Installation, *Error) {
	failed := &Error{Location: p.name}
	opts := elfdep.Options{Root: s.fs.root, LibraryPaths: p.dirs, SearchPaths: s.layout.searchDirs, Stop: s.bundled}
	required := p.dirs // a directory of ROCm must contain every library that the manifest names
	if p.dir == "" {
		required = s.layout.searchDirs
	}
	var roots []string
	for _, l := range s.host.Libraries {
		if file := s.findFile(required, l.SONAME); file != "" {
			roots = append(roots, file)
			failed.Broken = append(failed.Broken, s.undefinedVersions(file, l)...)
			continue
		}
		failed.Missing = append(failed.Missing, MissingLibrary{SONAME: l.SONAME, NeededBy: l.NeededBy[0]})
	}
	libs, err := elfdep.Closure(roots, opts)
	failed.addErrors(err)
	if err == nil {
		libs, err = s.addDlopened(libs, roots, opts)
		failed.addErrors(err)
	}
	failed.Broken = append(failed.Broken, s.missingVersions(libs)...)
	if failed.distance() > 0 {
		return nil, failed
	}
	h := &Installation{Location: p.name, Libraries: libs, LibraryDirs: s.libraryDirs(p, libs)}
	if p.dir != "" {
		if b, err := s.fs.read(path.Join(p.dir, ".info/version"), 4096); err == nil {
			if h.Version, err = ParseVersion(b); err != nil {
				s.layout.notes = append(s.layout.notes, err.Error())
			}
		}
	}
	s.findKernels(p, h)
	return h, nil
}

// addErrors adds the errors of a closure.
func (e *Error) addErrors(err error) {
	var joined interface{ Unwrap() []error }
	var missing *elfdep.MissingError
	switch {
	case err == nil:
	case errors.As(err, &joined):
		for _, part := range joined.Unwrap() {
			e.addErrors(part)
		}
	case errors.As(err, &missing):
		if !slices.ContainsFunc(e.Missing, func(m MissingLibrary) bool { return m.SONAME == missing.Name }) {
			e.Missing = append(e.Missing, MissingLibrary{SONAME: missing.Name, NeededBy: missing.NeededBy})
		}
	default:
		e.Broken = append(e.Broken, err.Error())
	}
}

// findFile returns the path of the first file of that name in dirs.
func (s *finder) findFile(dirs []string, name string) string {
	for _, dir := range dirs {
		if file := path.Join(dir, name); s.fs.isFile(file) {
			return file
		}
	}
	return ""
}

// addDlopened extends a closure by the libraries that HIP opens by name and needs:
// the code object manager, if HIP is not linked with it.
func (s *finder) addDlopened(libs []elfdep.Lib, roots []string, opts elfdep.Options) ([]elfdep.Lib, error) {
	i := slices.IndexFunc(libs, func(l elfdep.Lib) bool { return strings.HasPrefix(l.SONAME, "libamdhip64.so.") })
	if i < 0 {
		return libs, nil
	}
	decisions, err := elfdep.Reviewed()
	if err != nil {
		return nil, err
	}
	names, err := elfdep.OpenedNames(libs[i].Path)
	if err != nil {
		return nil, err
	}
	// Names that nobody has reviewed are the host's responsibility.
	must, _, err := elfdep.Review(names, decisions, func(soname string) bool {
		return slices.ContainsFunc(libs, func(l elfdep.Lib) bool { return l.SONAME == soname })
	})
	var open *elfdep.UnreviewedError
	if err != nil && !errors.As(err, &open) {
		return nil, err
	}
	dirs := slices.Concat([]string{path.Dir(libs[i].InRoot)}, opts.LibraryPaths, opts.SearchPaths)
	var missing []error
	for _, v := range must {
		file := s.findFile(dirs, v.Candidate.Name)
		if file == "" {
			missing = append(missing, &elfdep.MissingError{Name: v.Candidate.Name, NeededBy: libs[i].InRoot, Searched: dirs})
			continue
		}
		roots = append(slices.Clip(roots), file)
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	return elfdep.Closure(roots, opts)
}

// libraryDirs returns the directories to pass to the loader: the installation's own,
// and those of libraries that the loader would not find by itself. It returns no
// other, since they take precedence over the run paths of ROCm's libraries.
func (s *finder) libraryDirs(p location, libs []elfdep.Lib) []string {
	out := slices.Clone(p.dirs)
	for _, l := range libs {
		if s.findFile(p.dirs, l.SONAME) != "" || s.isFoundByLoader(l) {
			continue
		}
		for _, dir := range s.layout.searchDirs {
			if s.isSameFile(path.Join(dir, l.SONAME), l) {
				if !slices.Contains(out, dir) {
					out = append(out, dir)
				}
				break
			}
		}
	}
	return out
}

// isFoundByLoader reports whether the bundle's loader finds a library by itself: in
// the host's cache, or in its built-in directories.
func (s *finder) isFoundByLoader(l elfdep.Lib) bool {
	for _, e := range s.layout.cache {
		if e.SONAME == l.SONAME && s.isSameFile(e.Path, l) {
			return true
		}
	}
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"} {
		if s.isSameFile(path.Join(dir, l.SONAME), l) {
			return true
		}
	}
	return false
}

// isSameFile reports whether a path leads to a library's file.
func (s *finder) isSameFile(file string, l elfdep.Lib) bool {
	inside, _, err := elfdep.Resolve(s.fs.root, file)
	return err == nil && inside == l.InRoot
}

// addPackages adds the packages that contain a missing library, and the files of its
// other versions.
func (s *finder) addPackages(m *MissingLibrary) {
	if known, ok := s.table.Lookup(m.SONAME); ok {
		m.Debian, m.AMD = known.Debian, known.AMD
	}
	for _, l := range s.host.Libraries {
		if l.SONAME == m.SONAME {
			m.Debian, m.AMD = l.Debian, l.AMD
		}
	}
	stem := hostlib.Stem(m.SONAME)
	if stem == "" {
		return
	}
	var dirs []string
	for _, p := range s.layout.locations {
		dirs = append(dirs, p.dirs...)
	}
	for _, dir := range append(dirs, s.layout.searchDirs...) {
		for _, name := range s.fs.listDir(dir) {
			if file := path.Join(dir, name); isOtherVersion(name, stem) && name != m.SONAME && !slices.Contains(m.Found, file) {
				m.Found = append(m.Found, file)
			}
		}
	}
}

// isOtherVersion reports whether name is stem and a number. Stems are read from files
// and may contain any bytes.
func isOtherVersion(name, stem string) bool {
	number, ok := strings.CutPrefix(name, stem)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
