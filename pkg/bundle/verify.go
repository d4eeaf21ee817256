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
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// DifferenceKind says in which way a file differs from its manifest.
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

// Difference is one file that is not as the manifest says.
type Difference struct {
	Path string
	Kind DifferenceKind
	// Want and Got are what the manifest says and what is there, as text;
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

// VerifyError lists all differences between a folder and its manifest.
type VerifyError struct {
	Dir         string
	Differences []Difference // sorted by path
}

// Error names the first differences and counts all; see Details.
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

// Details names all differences, a line each after the first. Whatever the files
// there are called, their lines end where they should and drive no terminal.
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

// Is reports that a VerifyError is an ErrContent.
func (e *VerifyError) Is(target error) bool { return target == ErrContent }

// Verify checks every byte, size and mode of a whole bundle's folder against m
// and looks for files that should not be there. It returns a *VerifyError with
// everything that differs.
func Verify(ctx context.Context, dir string, m *Manifest) error {
	return VerifyTargets(ctx, dir, m, nil)
}

// VerifyTargets is Verify for a folder that need only hold what these targets
// need; nil means all. Files of other targets may be there, and are then
// checked, or not. A file with parts may be whole or, for a single target,
// that target's projection; for no target any projection will do.
func VerifyTargets(ctx context.Context, dir string, m *Manifest, targets []gfx.Target) error {
	v, err := readFolder(ctx, dir, m)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	return v.judge(targets)
}

// VerifyInstalled is VerifyTargets for a folder of which nobody tells the targets.
// It returns those that the folder is right for: each has its own files, and
// the files with parts have its code. A target of which no file is there is
// not missed.
func VerifyInstalled(ctx context.Context, dir string, m *Manifest) ([]gfx.Target, error) {
	v, err := readFolder(ctx, dir, m)
	if err != nil {
		return nil, fmt.Errorf("verify %s: %w", dir, err)
	}
	targets := v.targets()
	return targets, v.judge(targets)
}

// folder is what was found in a bundle's folder.
type folder struct {
	dir     string
	m       *Manifest
	files   []File // those of the manifest, and the manifest
	present map[string]bool
	diffs   []Difference // whatever the folder is for
	found   [][]Difference
	sums    []string // of files; empty where they could not be read
}

// readFolder looks at everything in the folder and hashes it.
func readFolder(ctx context.Context, dir string, m *Manifest) (*folder, error) {
	canonical, err := m.MarshalCanonical()
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()

	v := &folder{dir: dir, m: m}
	if v.present, v.diffs, err = listFolder(root, m); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(canonical)
	v.files = append(slices.Clone(m.Files), File{Path: ManifestName, Size: int64(len(canonical)), Mode: 0o644, SHA256: hex.EncodeToString(sum[:])})
	v.found, v.sums = make([][]Difference, len(v.files)), make([]string, len(v.files))
	err = parallel(ctx, len(v.files), 0, func(ctx context.Context, i int) error {
		if v.present[v.files[i].Path] {
			v.sums[i], v.found[i] = hashFile(ctx, root, v.files[i])
		}
		return ctx.Err()
	})
	return v, err
}

// targets returns what the folder seems to be for.
func (v *folder) targets() []gfx.Target {
	own, there := make(map[gfx.Target]bool), make(map[gfx.Target]bool)
	for _, f := range v.m.Files {
		own[f.Target] = true
		there[f.Target] = there[f.Target] || v.present[f.Path]
	}
	out := slices.DeleteFunc(slices.Clone(v.m.Targets), func(t gfx.Target) bool { return own[t] && !there[t] })
	for i := range v.files {
		if only, ok := v.files[i].ProjectionTarget(v.sums[i]); ok {
			out = slices.DeleteFunc(out, func(t gfx.Target) bool { return t != only })
		}
	}
	return append([]gfx.Target{}, out...) // never nil, which would mean all
}

// judge lists what is wrong for these targets.
func (v *folder) judge(targets []gfx.Target) error {
	diffs, want := slices.Clone(v.diffs), ForTargets(targets)
	for i, f := range v.files {
		switch {
		case !v.present[f.Path]:
			if want(f) {
				diffs = append(diffs, Difference{Path: f.Path, Kind: Missing})
			}
		case v.sums[i] == "" || f.fits(v.sums[i], targets):
			diffs = append(diffs, v.found[i]...)
		default:
			diffs = append(append(diffs, v.found[i]...), Difference{Path: f.Path, Kind: WrongSum, Want: f.sumFor(targets), Got: v.sums[i]})
		}
	}
	if len(diffs) == 0 {
		return nil
	}
	slices.SortStableFunc(diffs, func(a, b Difference) int { return compareStrings(a.Path, b.Path) })
	return &VerifyError{Dir: v.dir, Differences: diffs}
}

// listFolder walks the folder; what the manifest does not know is Extra.
func listFolder(root *os.Root, m *Manifest) (map[string]bool, []Difference, error) {
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
// manifest entry; ok is true if they fit. It reads no content.
func StatFile(root *os.Root, f File) (d Difference, ok bool) {
	st, err := root.Lstat(f.Path)
	if err != nil {
		return unreadable(f.Path, err), false
	}
	if !st.Mode().IsRegular() {
		return Difference{Path: f.Path, Kind: WrongType, Want: typeName(0), Got: typeName(st.Mode().Type())}, false
	}
	if st.Size() != f.Size {
		return Difference{Path: f.Path, Kind: WrongSize, Want: strconv.FormatInt(f.Size, 10), Got: strconv.FormatInt(st.Size(), 10)}, false
	}
	if got := st.Mode() &^ fs.ModeType; got != fs.FileMode(f.Mode) {
		return Difference{Path: f.Path, Kind: WrongMode, Want: fs.FileMode(f.Mode).String(), Got: got.String()}, false
	}
	return Difference{}, true
}

// CheckFile is StatFile and, if type and size fit, a look at the content, which
// must do for these targets as VerifyTargets says. It returns all differences
// found.
func CheckFile(ctx context.Context, root *os.Root, f File, targets []gfx.Target) []Difference {
	sum, diffs := hashFile(ctx, root, f)
	if sum != "" && !f.fits(sum, targets) {
		diffs = append(diffs, Difference{Path: f.Path, Kind: WrongSum, Want: f.sumFor(targets), Got: sum})
	}
	return diffs
}

// hashFile is StatFile and, if type and size fit, the content's digest.
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
