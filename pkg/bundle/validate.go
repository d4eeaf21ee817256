package bundle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Limits of a manifest. They limit what a pack can make an unpacker write.
const (
	// MaxFileSize is the largest size of a file: 16 GiB.
	MaxFileSize = 16 << 30
	// MaxTotalSize is the largest size of all files together: 64 GiB.
	MaxTotalSize = 64 << 30
	// MaxFiles is the largest number of files.
	MaxFiles = 10_000

	maxPath    = 1024
	maxElement = 255
	// maxEpoch is the latest time that fits into a ustar header (11 octal digits).
	maxEpoch = 1<<33 - 1
)

func compareStrings(a, b string) int { return cmp.Compare(a, b) }

// Validate checks the manifest against every rule that packing and unpacking
// rely on. The error wraps ErrManifest and names the field.
func (m *Manifest) Validate() error {
	for _, check := range []func() error{m.validateHead, m.validateToolchain, m.validateStages, m.validateFiles, m.validateEntry, m.validateCode, m.validateHost} {
		if err := check(); err != nil {
			return fmt.Errorf("%w: %w", ErrManifest, err)
		}
	}
	return nil
}

func (m *Manifest) validateHead() error {
	if m.Schema != Schema {
		return fmt.Errorf("schema is %d, want %d", m.Schema, Schema)
	}
	for _, f := range []struct{ field, value string }{{"name", m.Name}, {"variant", m.Variant}} {
		if !validName(f.value) {
			return fmt.Errorf("%s %q: want lower-case letters, digits, dot, dash or underscore", f.field, f.value)
		}
	}
	if m.Flavour != FlavourHermetic && m.Flavour != FlavourSystem {
		return fmt.Errorf("flavour %q: want %q or %q", m.Flavour, FlavourHermetic, FlavourSystem)
	}
	if m.Version == "" || len(m.Version) > 128 || !printable(m.Version) {
		return fmt.Errorf("version %q: want 1 to 128 printable characters", m.Version)
	}
	if m.SourceDateEpoch < 0 || m.SourceDateEpoch > maxEpoch {
		return fmt.Errorf("sourceDateEpoch %d is outside 0..%d", m.SourceDateEpoch, int64(maxEpoch))
	}
	for i, t := range m.Targets {
		if _, err := gfx.Parse(string(t)); err != nil {
			return fmt.Errorf("targets: %w", err)
		}
		if i > 0 && gfx.Compare(m.Targets[i-1], t) >= 0 {
			return fmt.Errorf("targets: %s after %s: want each once, sorted", t, m.Targets[i-1])
		}
	}
	if t := m.Source.Tree; t != "" && !isHex(t, 40) && !isHex(t, 64) {
		return fmt.Errorf("source tree %q is not a git tree hash", t)
	}
	if !printable(m.Source.Tag) || !printable(m.Source.URL) {
		return fmt.Errorf("source: unprintable characters in tag or url")
	}
	return nil
}

func (m *Manifest) validateToolchain() error {
	tc := &m.Toolchain
	if !printable(tc.Kind) {
		return fmt.Errorf("toolchain kind %q has unprintable characters", tc.Kind)
	}
	if sum, ok := strings.CutPrefix(tc.BaseDigest, "sha256:"); tc.BaseDigest != "" && (!ok || !isHex(sum, 64)) {
		return fmt.Errorf("toolchain baseDigest %q: want sha256: and 64 hex digits", tc.BaseDigest)
	}
	for i, p := range tc.Packages {
		if p.Name == "" || p.Version == "" || !printable(p.Name+p.Version+p.Arch) {
			return fmt.Errorf("toolchain package %q version %q: both must be printable and not empty", p.Name, p.Version)
		}
		if p.SHA256 != "" && !isHex(p.SHA256, 64) {
			return fmt.Errorf("toolchain package %s: sha256 %q is not 64 lower-case hex digits", p.Name, p.SHA256)
		}
		if i > 0 && comparePackages(tc.Packages[i-1], p) >= 0 {
			return fmt.Errorf("toolchain package %s %s: want each once, sorted by name, arch, version", p.Name, p.Version)
		}
	}
	for _, d := range tc.Deviations {
		if d == "" || !utf8.ValidString(d) {
			return fmt.Errorf("toolchain deviation %q: want a sentence", d)
		}
	}
	return nil
}

func comparePackages(a, b Package) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Version, b.Version))
}

func (m *Manifest) validateStages() error {
	seen := make(map[string]bool, len(m.Stages))
	for _, s := range m.Stages {
		if !validName(s.Name) {
			return fmt.Errorf("stage %q: bad name", s.Name)
		}
		if seen[s.Name] {
			return fmt.Errorf("stage %s occurs twice", s.Name)
		}
		seen[s.Name] = true
		if !isHex(s.Digest, 64) || (s.Output != "" && !isHex(s.Output, 64)) {
			return fmt.Errorf("stage %s: digest %q and output %q must be 64 lower-case hex digits", s.Name, s.Digest, s.Output)
		}
		for _, o := range append(append([]string(nil), s.Options...), s.Env...) {
			if !utf8.ValidString(o) || strings.ContainsRune(o, 0) {
				return fmt.Errorf("stage %s: option or variable %q is not text", s.Name, o)
			}
		}
	}
	return nil
}

func (m *Manifest) validateFiles() error {
	if len(m.Files) == 0 || len(m.Files) > MaxFiles {
		return fmt.Errorf("%d files: want 1 to %d", len(m.Files), MaxFiles)
	}
	known := make(map[gfx.Target]bool, len(m.Targets))
	for _, t := range m.Targets {
		known[t] = true
	}
	files := make(map[string]bool, len(m.Files))
	dirs := make(map[string]bool)
	bySum := make(map[string]*File, len(m.Files))
	var total int64
	for i := range m.Files {
		f := &m.Files[i]
		if err := f.validate(); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
		if i > 0 && m.Files[i-1].Path >= f.Path {
			return fmt.Errorf("file %q: want each path once, sorted", f.Path)
		}
		if f.Target != "" && !known[f.Target] {
			return fmt.Errorf("file %q is for %s, which is not among the targets", f.Path, f.Target)
		}
		if err := f.validateParts(m.Targets); err != nil {
			return fmt.Errorf("file %q: %w", f.Path, err)
		}
		// Equal files are stored once and linked, so their parts must be equal.
		if first := bySum[f.SHA256]; first == nil {
			bySum[f.SHA256] = f
		} else if !equalParts(first.Parts, f.Parts) {
			return fmt.Errorf("file %q has the content of %q, but other parts", f.Path, first.Path)
		}
		if total += f.Size; total > MaxTotalSize {
			return fmt.Errorf("the files are larger than %d bytes together", int64(MaxTotalSize))
		}
		files[f.Path] = true
		for d := parentOf(f.Path); d != "" && !dirs[d]; d = parentOf(d) {
			dirs[d] = true
		}
	}
	for d := range dirs {
		if files[d] {
			return fmt.Errorf("%q is both a file and a directory", d)
		}
	}
	return nil
}

func (f *File) validate() error {
	if err := ValidPath(f.Path); err != nil {
		return err
	}
	switch {
	case f.Size < 0 || f.Size > MaxFileSize:
		return fmt.Errorf("size %d is outside 0..%d", f.Size, int64(MaxFileSize))
	case f.Mode&^0o755 != 0 || f.Mode&0o400 == 0:
		return fmt.Errorf("mode %#o: want permission bits within 0755, readable by the owner", f.Mode)
	case !isHex(f.SHA256, 64):
		return fmt.Errorf("sha256 %q is not 64 lower-case hex digits", f.SHA256)
	}
	for _, n := range f.Needed {
		if n == "" || !printable(n) {
			return fmt.Errorf("needed library %q: bad name", n)
		}
	}
	return nil
}

func (m *Manifest) validateEntry() error {
	check := func(field, path string) error {
		f, ok := m.File(path)
		switch {
		case !ok:
			return fmt.Errorf("entry %s %q is not among the files", field, path)
		case f.Mode&0o100 == 0:
			return fmt.Errorf("entry %s %q is not executable", field, path)
		case f.Target != "":
			return fmt.Errorf("entry %s %q is for target %s alone", field, path, f.Target)
		}
		return nil
	}
	if m.Entry.Loader == "" && m.Flavour == FlavourHermetic {
		return fmt.Errorf("a hermetic bundle needs an entry loader")
	}
	if m.Entry.Loader != "" {
		if err := check("loader", m.Entry.Loader); err != nil {
			return err
		}
	}
	return check("program", m.Entry.Program)
}

func (m *Manifest) validateCode() error {
	for i, c := range m.CodeObjects {
		if _, ok := m.File(c.File); !ok {
			return fmt.Errorf("code objects of %q: no such file", c.File)
		}
		if _, err := gfx.Parse(string(c.Target)); err != nil {
			return fmt.Errorf("code objects of %q: %w", c.File, err)
		}
		if c.Bytes < 0 || c.Kernels < 0 {
			return fmt.Errorf("code objects of %q for %s: negative count", c.File, c.Target)
		}
		if i > 0 && compareCode(m.CodeObjects[i-1], c) >= 0 {
			return fmt.Errorf("code objects of %q for %s: want each once, sorted by file and target", c.File, c.Target)
		}
	}
	for i, e := range m.Excluded {
		if e.Name == "" || e.Reason == "" || !utf8.ValidString(e.Name+e.Reason) {
			return fmt.Errorf("excluded %q: name and reason must not be empty", e.Name)
		}
		if i > 0 && m.Excluded[i-1].Name >= e.Name {
			return fmt.Errorf("excluded %q: want each once, sorted", e.Name)
		}
	}
	return nil
}

func compareCode(a, b CodeObjects) int {
	return cmp.Or(cmp.Compare(a.File, b.File), gfx.Compare(a.Target, b.Target))
}

func validName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '.' || s[0] == '-' {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

func isHex(s string, n int) bool {
	if len(s) != n {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// validateHost checks the host requirements of a system bundle: its files must
// need each of the libraries, and none of the libraries may be among its files.
func (m *Manifest) validateHost() error {
	if m.Host == nil {
		return nil
	}
	if m.Flavour != FlavourSystem {
		return fmt.Errorf("host: a bundle of flavour %s needs nothing from its host", m.Flavour)
	}
	h := m.Host
	if h.ROCm == "" || strings.Trim(h.ROCm, "0123456789.") != "" {
		return fmt.Errorf("host rocm %q: want a version such as 6.4.3", h.ROCm)
	}
	if len(h.Libraries) == 0 {
		return errors.New("host libraries: a bundle without any is hermetic")
	}
	for i, l := range h.Libraries {
		if err := m.validateHostLibrary(l); err != nil {
			return fmt.Errorf("host library %q: %w", l.SONAME, err)
		}
		if i > 0 && h.Libraries[i-1].SONAME >= l.SONAME {
			return fmt.Errorf("host library %q: want each once, sorted", l.SONAME)
		}
	}
	for i, v := range h.Provides {
		kind, number, ok := strings.Cut(v, "_")
		if !ok || kind == "" || number == "" || !printable(v) {
			return fmt.Errorf("host provides %q: want a symbol version such as GLIBC_2.43", v)
		}
		if i > 0 && h.Provides[i-1] >= v {
			return fmt.Errorf("host provides %q: want each once, sorted", v)
		}
	}
	return nil
}

func (m *Manifest) validateHostLibrary(l HostLibrary) error {
	if l.SONAME == "" || strings.Contains(l.SONAME, "/") || !printable(l.SONAME+l.Debian+l.AMD) {
		return errors.New("bad name")
	}
	if _, ok := m.File(l.SONAME); ok {
		return errors.New("the bundle contains it")
	}
	for i, v := range l.Versions {
		if v == "" || !printable(v) || (i > 0 && l.Versions[i-1] >= v) {
			return fmt.Errorf("symbol version %q: want each once, sorted", v)
		}
	}
	if len(l.NeededBy) == 0 {
		return errors.New("no file needs it")
	}
	for _, by := range l.NeededBy {
		f, ok := m.File(by)
		if !ok || !slices.Contains(f.Needed, l.SONAME) {
			return fmt.Errorf("%q is not a file that needs it", by)
		}
	}
	return nil
}

// ValidPath returns an error if a path may not be in a bundle. Valid paths are
// relative and slash-separated, of portable characters, and without "." and ".."
// elements, so that a path means the same file on every system and in every shell
// command.
func ValidPath(p string) error {
	if p == "" || len(p) > maxPath {
		return fmt.Errorf("path of %d bytes: want 1 to %d", len(p), maxPath)
	}
	if p == ManifestName {
		return fmt.Errorf("the name %s is reserved", ManifestName)
	}
	for e := range strings.SplitSeq(p, "/") {
		switch {
		case e == "" || e == "." || e == "..":
			return fmt.Errorf("path element %q is not allowed", e)
		case len(e) > maxElement:
			return fmt.Errorf("path element of %d bytes: want at most %d", len(e), maxElement)
		case e[0] == '-' || e[0] == '~':
			return fmt.Errorf("path element %q must not begin with %q", e, e[0])
		}
		for i := range len(e) {
			if !pathChar(e[i]) {
				return fmt.Errorf("path has the character %q; allowed are ASCII letters, digits and ._+-@,=%%~", e[i])
			}
		}
	}
	return nil
}

func pathChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._+-@,=%~", c) >= 0
}

func parentOf(p string) string {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ""
	}
	return p[:i]
}
