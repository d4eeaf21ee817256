package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// DifferenceKind is the way in which a file differs from its manifest.
type DifferenceKind string

// Kinds of differences.
const (
	Missing    DifferenceKind = "missing"
	Extra      DifferenceKind = "extra"
	WrongType  DifferenceKind = "type"
	WrongSize  DifferenceKind = "size"
	WrongMode  DifferenceKind = "mode"
	WrongSum   DifferenceKind = "sha256"
	Unreadable DifferenceKind = "unreadable"
)

// Difference describes a file that differs from its manifest entry.
type Difference struct {
	Path string
	Kind DifferenceKind
	// Want is the value in the manifest and Got the actual one, as text; both are
	// empty for a missing or extra file.
	Want, Got string
	// Err is set for Unreadable.
	Err error
}

// String returns one line such as "llama-server: sha256 is …, want …".
func (d Difference) String() string {
	switch d.Kind {
	case Missing, Extra:
		return d.Path + ": " + string(d.Kind)
	case Unreadable:
		return fmt.Sprintf("%s: %s: %v", d.Path, d.Kind, d.Err)
	}
	return fmt.Sprintf("%s: %s is %s, want %s", d.Path, d.Kind, d.Got, d.Want)
}

// VerifyError lists all differences between a directory and its manifest.
type VerifyError struct {
	Dir         string
	Differences []Difference // sorted by path
}

// Error returns the first differences and the number of all. Details returns all.
func (e *VerifyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s differs from its manifest in %d places", e.Dir, len(e.Differences))
	for i, d := range e.Differences {
		if i == 3 {
			b.WriteString("; …")
			break
		}
		b.WriteString("; " + d.String())
	}
	return b.String()
}

// Details returns a heading and one line for each difference. Control characters
// in file names are replaced, so that no name can add a line or control a terminal.
func (e *VerifyError) Details() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s differs from its manifest in %d places:", e.Dir, len(e.Differences))
	for _, d := range e.Differences {
		b.WriteString("\n  " + strings.Map(func(r rune) rune {
			if unicode.IsPrint(r) {
				return r
			}
			return unicode.ReplacementChar
		}, d.String()))
	}
	return b.String()
}

// Is reports whether target is ErrContent.
func (e *VerifyError) Is(target error) bool { return target == ErrContent }

// Verify compares the size, mode and content of every file in the directory of a
// whole bundle with m, and finds files that m does not list. It returns a
// *VerifyError with all differences.
func Verify(ctx context.Context, dir string, m *Manifest) error {
	return VerifyTargets(ctx, dir, m, nil)
}

// VerifyTargets is Verify for a directory that only needs the files of these
// targets; nil means all. Files of other targets may be missing, and are compared
// if present. A file with parts may be whole or, for a single target, that target's
// projection; for no target it may be any projection.
func VerifyTargets(ctx context.Context, dir string, m *Manifest, targets []gfx.Target) error {
	v, err := scanDir(ctx, dir, m)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	return v.compare(targets)
}

// VerifyInstalled is VerifyTargets for the targets that it finds in the directory,
// and returns them: those with files of their own, and with their code in the files
// with parts. A target without any of its files is not installed, which is no
// difference.
func VerifyInstalled(ctx context.Context, dir string, m *Manifest) ([]gfx.Target, error) {
	v, err := scanDir(ctx, dir, m)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	targets := v.targets()
	return targets, v.compare(targets)
}

// dirState is the content of a bundle's directory.
type dirState struct {
	dir     string
	m       *Manifest
	files   []File // all files of the manifest, and the manifest
	present map[string]bool
	diffs   []Difference   // of the whole directory, for any targets
	found   [][]Difference // of each file, except for its content
	sums    []string       // of each file; empty if it could not be read
}

// scanDir lists the directory and hashes its files.
func scanDir(ctx context.Context, dir string, m *Manifest) (*dirState, error) {
	canonical, err := m.MarshalCanonical()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()

	v := &dirState{dir: dir, m: m}
	if v.present, v.diffs, err = listDir(root, m); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(canonical)
	v.files = append(slices.Clone(m.Files), File{Path: ManifestName, Size: int64(len(canonical)), Mode: 0o644, SHA256: hex.EncodeToString(sum[:])})
	v.found, v.sums = make([][]Difference, len(v.files)), make([]string, len(v.files))
	err = forEach(ctx, len(v.files), 0, func(ctx context.Context, i int) error {
		if v.present[v.files[i].Path] {
			v.sums[i], v.found[i] = hashFile(ctx, root, v.files[i])
		}
		return ctx.Err()
	})
	return v, err
}

// targets returns the targets that the directory seems to be installed for.
func (v *dirState) targets() []gfx.Target {
	own, present := make(map[gfx.Target]bool), make(map[gfx.Target]bool)
	for _, f := range v.m.Files {
		own[f.Target] = true
		present[f.Target] = present[f.Target] || v.present[f.Path]
	}
	out := slices.DeleteFunc(slices.Clone(v.m.Targets), func(t gfx.Target) bool { return own[t] && !present[t] })
	for i := range v.files {
		if only, ok := v.files[i].ProjectionTarget(v.sums[i]); ok {
			out = slices.DeleteFunc(out, func(t gfx.Target) bool { return t != only })
		}
	}
	return append([]gfx.Target{}, out...) // never nil, which would mean all
}

// compare returns the differences for these targets as a *VerifyError.
func (v *dirState) compare(targets []gfx.Target) error {
	diffs, want := slices.Clone(v.diffs), ForTargets(targets)
	for i, f := range v.files {
		switch {
		case !v.present[f.Path]:
			if want(f) {
				diffs = append(diffs, Difference{Path: f.Path, Kind: Missing})
			}
		case v.sums[i] == "" || f.accepts(v.sums[i], targets):
			diffs = append(diffs, v.found[i]...)
		default:
			diffs = append(append(diffs, v.found[i]...), Difference{Path: f.Path, Kind: WrongSum, Want: f.digestFor(targets), Got: v.sums[i]})
		}
	}
	if len(diffs) == 0 {
		return nil
	}
	slices.SortStableFunc(diffs, func(a, b Difference) int { return compareStrings(a.Path, b.Path) })
	return &VerifyError{Dir: v.dir, Differences: diffs}
}

// listDir walks the directory. Names that the manifest does not list are Extra.
func listDir(root *os.Root, m *Manifest) (map[string]bool, []Difference, error) {
	dirs := make(map[string]bool)
	for _, f := range m.Files {
		for d := parentOf(f.Path); d != "" && !dirs[d]; d = parentOf(d) {
			dirs[d] = true
		}
	}
	present := make(map[string]bool, len(m.Files))
	var diffs []Difference
	err := fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil && p != ".":
			diffs = append(diffs, Difference{Path: p, Kind: Unreadable, Err: err})
			return fs.SkipDir
		case err != nil:
			return err
		case p == "." || d.IsDir() && dirs[p]:
			return nil
		}
		if _, ok := m.File(p); ok || p == ManifestName {
			present[p] = true
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		diffs = append(diffs, Difference{Path: p, Kind: Extra})
		if d.IsDir() {
			return fs.SkipDir
		}
		return nil
	})
	return present, diffs, err
}

// StatFile compares type, size and mode of one file below root with its
// manifest entry; ok is true if they are equal. It does not read the content.
func StatFile(root *os.Root, f File) (d Difference, ok bool) {
	st, err := root.Lstat(f.Path)
	if err != nil {
		return unreadable(f.Path, err), false
	}
	if !st.Mode().IsRegular() {
		return Difference{Path: f.Path, Kind: WrongType, Want: regfile.Kind(0), Got: regfile.Kind(st.Mode().Type())}, false
	}
	if st.Size() != f.Size {
		return Difference{Path: f.Path, Kind: WrongSize, Want: strconv.FormatInt(f.Size, 10), Got: strconv.FormatInt(st.Size(), 10)}, false
	}
	if got := st.Mode() &^ fs.ModeType; got != fs.FileMode(f.Mode) {
		return Difference{Path: f.Path, Kind: WrongMode, Want: fs.FileMode(f.Mode).String(), Got: got.String()}, false
	}
	return Difference{}, true
}

// CheckFile is StatFile and, if type and size are right, compares the content, which
// must be right for these targets as in VerifyTargets. It returns all differences.
func CheckFile(ctx context.Context, root *os.Root, f File, targets []gfx.Target) []Difference {
	sum, diffs := hashFile(ctx, root, f)
	if sum != "" && !f.accepts(sum, targets) {
		diffs = append(diffs, Difference{Path: f.Path, Kind: WrongSum, Want: f.digestFor(targets), Got: sum})
	}
	return diffs
}

// hashFile is StatFile and, if type and size are right, hashes the content.
func hashFile(ctx context.Context, root *os.Root, f File) (sum string, diffs []Difference) {
	if d, ok := StatFile(root, f); !ok {
		diffs = append(diffs, d)
		if d.Kind != WrongMode {
			return "", diffs
		}
	}
	in, err := root.Open(f.Path)
	if err != nil {
		return "", append(diffs, unreadable(f.Path, err))
	}
	defer func() { _ = in.Close() }()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{ctxio.Reader(ctx, in)}, make([]byte, chunk)); err != nil {
		return "", append(diffs, unreadable(f.Path, err))
	}
	return hex.EncodeToString(h.Sum(nil)), diffs
}

func unreadable(path string, err error) Difference {
	if errors.Is(err, fs.ErrNotExist) {
		return Difference{Path: path, Kind: Missing}
	}
	return Difference{Path: path, Kind: Unreadable, Err: err}
}

// Verify decodes the whole pack and verifies every byte, without writing anything:
// the files by their digests, the tar headers between them by the manifest. The
// error wraps ErrContent and names the first damaged file of each frame, in the
// order of the frames.
func (r *Reader) Verify(ctx context.Context) error {
	layouts, err := r.layouts()
	if err != nil {
		return err
	}
	damage := make([]string, len(r.index.Frames))
	err = forEach(ctx, len(r.index.Frames), 0, func(ctx context.Context, i int) error {
		f := &r.index.Frames[i]
		d, err := newFrameDecoder(f.decoderWindow())
		if err != nil {
			return err
		}
		defer d.close()
		err = d.decode(ctx, r.section(f), f, &layouts[i], func(path string, stored int64) (File, sink) {
			if i == 0 {
				return File{Path: path, Size: stored}, &byteSink{want: r.canonical}
			}
			file, _ := r.manifest.File(path)
			s := newHashSink()
			s.projections = newProjector(&file)
			return file, s
		})
		if err != nil && errors.Is(err, ErrContent) {
			damage[i] = strings.ReplaceAll(err.Error(), ErrContent.Error()+": ", "") // the error says it once
			return nil
		}
		return err
	})
	damage = slices.DeleteFunc(damage, func(s string) bool { return s == "" })
	if err == nil && len(damage) > 0 {
		err = fmt.Errorf("%w: %s", ErrContent, strings.Join(damage, "; "))
	}
	return err
}
