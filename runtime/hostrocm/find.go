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

// Host is a ROCm that a bundle can use.
type Installation struct {
	// Place is a folder such as /opt/rocm-6.4.1, or words for the system's own.
	Location string
	// Version is what the installation says of itself, empty where it says
	// nothing.
	Version string
	// Folders are to be searched after the bundle's own, in this order.
	LibraryDirs []string
	// Libraries are those that will be loaded from the host.
	Libraries []elfdep.Lib
	// KernelDir holds rocBLAS's kernels, Kernels are the targets that it has
	// some for. Both are empty where no such folder was found.
	KernelDir     string
	KernelTargets []gfx.Target
	// Notes are what was passed over on the way.
	Notes []string
}

// search is one search for the libraries of one bundle.
type search struct {
	fs     FS
	layout layout
	host   *bundle.Host
	stop   []string // the bundle's own libraries
	table  *hostlib.Table
}

// Find looks for the ROCm that a bundle of the system flavour needs. environ is
// the environment, as os.Environ gives it. The error is an *Error where there
// is none that will do.
func (f FS) Find(m *bundle.Manifest, environ []string) (*Installation, error) {
	if m == nil || m.Host == nil {
		return nil, errors.New("the bundle takes nothing from the host")
	}
	table, err := hostlib.Reviewed()
	if err != nil {
		return nil, err
	}
	s := &search{fs: f, layout: f.layout(environ), host: m.Host, table: table}
	for _, file := range m.Files {
		s.stop = append(s.stop, path.Base(file.Path))
	}
	var best *Error
	for _, p := range s.layout.places {
		found, failed := s.try(p)
		if failed == nil {
			found.Notes = s.layout.notes
			return found, nil
		}
		if best == nil || failed.weight() < best.weight() {
			best = failed
		}
	}
	best.ROCm, best.Notes = m.Host.ROCm, s.layout.notes
	for i := range best.Missing {
		s.describe(&best.Missing[i])
	}
	return nil, best
}

// weight tells how far an installation is from what is needed.
func (e *Error) weight() int { return 2*len(e.Missing) + len(e.Broken) }

// try checks one installation as a whole.
func (s *search) try(p place) (*Installation, *Error) {
	failed := &Error{Location: p.name}
	opts := elfdep.Options{Root: s.fs.root, LibraryPaths: p.folders, SearchPaths: s.layout.search, Stop: s.stop}
	own := p.folders // a folder of ROCm must hold all that the bundle names
	if p.dir == "" {
		own = s.layout.search
	}
	var roots []string
	for _, l := range s.host.Libraries {
		if file := s.first(own, l.SONAME); file != "" {
			roots = append(roots, file)
			failed.Broken = append(failed.Broken, s.tooOld(file, l)...)
			continue
		}
		failed.Missing = append(failed.Missing, MissingLibrary{SONAME: l.SONAME, NeededBy: l.NeededBy[0]})
	}
	libs, err := elfdep.Closure(roots, opts)
	failed.take(err)
	if err == nil {
		libs, err = s.addOpened(libs, roots, opts)
		failed.take(err)
	}
	failed.Broken = append(failed.Broken, s.tooNew(libs)...)
	if failed.weight() > 0 {
		return nil, failed
	}
	h := &Installation{Location: p.name, Libraries: libs, LibraryDirs: s.folders(p, libs)}
	if p.dir != "" {
		if b, err := s.fs.read(path.Join(p.dir, ".info/version"), 4096); err == nil {
			if h.Version, err = ParseVersion(b); err != nil {
				s.layout.notes = append(s.layout.notes, err.Error())
			}
		}
	}
	s.kernels(p, h)
	return h, nil
}

// take sorts the errors of a closure.
func (e *Error) take(err error) {
	var joined interface{ Unwrap() []error }
	var missing *elfdep.MissingError
	switch {
	case err == nil:
	case errors.As(err, &joined):
		for _, part := range joined.Unwrap() {
			e.take(part)
		}
	case errors.As(err, &missing):
		if !slices.ContainsFunc(e.Missing, func(m MissingLibrary) bool { return m.SONAME == missing.Name }) {
			e.Missing = append(e.Missing, MissingLibrary{SONAME: missing.Name, NeededBy: missing.NeededBy})
		}
	default:
		e.Broken = append(e.Broken, err.Error())
	}
}

// first gives the path of the first file of that name in folders.
func (s *search) first(folders []string, name string) string {
	for _, dir := range folders {
		if file := path.Join(dir, name); s.fs.file(file) {
			return file
		}
	}
	return ""
}

// addOpened extends a closure by what HIP opens by name and cannot do without:
// the code object manager, where HIP is not linked with it.
func (s *search) addOpened(libs []elfdep.Lib, roots []string, opts elfdep.Options) ([]elfdep.Lib, error) {
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
	// Names that nobody has reviewed are the host's own affair.
	must, _, err := elfdep.Review(names, decisions, func(soname string) bool {
		return slices.ContainsFunc(libs, func(l elfdep.Lib) bool { return l.SONAME == soname })
	})
	var open *elfdep.UnreviewedError
	if err != nil && !errors.As(err, &open) {
		return nil, err
	}
	folders := slices.Concat([]string{path.Dir(libs[i].InRoot)}, opts.LibraryPaths, opts.SearchPaths)
	var missing []error
	for _, v := range must {
		file := s.first(folders, v.Candidate.Name)
		if file == "" {
			missing = append(missing, &elfdep.MissingError{Name: v.Candidate.Name, NeededBy: libs[i].InRoot, Searched: folders})
			continue
		}
		roots = append(slices.Clip(roots), file)
	}
	if len(missing) > 0 {
		return nil, errors.Join(missing...)
	}
	return elfdep.Closure(roots, opts)
}

// folders are those that the loader must be told: the installation's own, and
// those of libraries that it would not find by itself. No other folder is
// named, for what is named comes before the run paths of ROCm's libraries.
func (s *search) folders(p place, libs []elfdep.Lib) []string {
	out := slices.Clone(p.folders)
	for _, l := range libs {
		if s.first(p.folders, l.SONAME) != "" || s.loaderFinds(l) {
			continue
		}
		for _, dir := range s.layout.search {
			if s.same(path.Join(dir, l.SONAME), l) {
				if !slices.Contains(out, dir) {
					out = append(out, dir)
				}
				break
			}
		}
	}
	return out
}

// loaderFinds tells whether the bundle's loader finds a library untold: in the
// host's cache, or in the folders that are built into it.
func (s *search) loaderFinds(l elfdep.Lib) bool {
	for _, e := range s.layout.cache {
		if e.SONAME == l.SONAME && s.same(e.Path, l) {
			return true
		}
	}
	for _, dir := range []string{"/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib", "/usr/lib"} {
		if s.same(path.Join(dir, l.SONAME), l) {
			return true
		}
	}
	return false
}

// same tells whether a path is that of a library, links followed.
func (s *search) same(file string, l elfdep.Lib) bool {
	inside, _, err := elfdep.Resolve(s.fs.root, file)
	return err == nil && inside == l.InRoot
}

// describe adds what helps a reader: packages, and files of other versions.
func (s *search) describe(m *MissingLibrary) {
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
	var folders []string
	for _, p := range s.layout.places {
		folders = append(folders, p.folders...)
	}
	for _, dir := range append(folders, s.layout.search...) {
		for _, name := range s.fs.names(dir) {
			if file := path.Join(dir, name); otherVersion(name, stem) && name != m.SONAME && !slices.Contains(m.Found, file) {
				m.Found = append(m.Found, file)
			}
		}
	}
}

// otherVersion tells whether name is stem and a number. Stems come out of files
// and may be any bytes.
func otherVersion(name, stem string) bool {
	number, ok := strings.CutPrefix(name, stem)
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}
