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

// Error names the first differences and counts the rest.
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

// Is reports that a VerifyError is an ErrContent.
func (e *VerifyError) Is(target error) bool { return target == ErrContent }

// Verify checks every byte, size and mode of a bundle folder against m and
// looks for files that should not be there. It returns a *VerifyError with
// everything that differs.
func Verify(ctx context.Context, dir string, m *Manifest) error {
	return VerifySelected(ctx, dir, m, nil)
}

// VerifySelected is Verify for a folder that holds only the selected files:
// the others may be there, and are then checked, or not.
func VerifySelected(ctx context.Context, dir string, m *Manifest, want func(File) bool) error {
	canonical, err := m.MarshalCanonical()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	defer func() { _ = root.Close() }()

	present, diffs, err := listFolder(root, m)
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	for _, f := range m.Files {
		if !present[f.Path] && (want == nil || want(f)) {
			diffs = append(diffs, Difference{Path: f.Path, Kind: Missing})
		}
	}
	if !present[ManifestName] {
		diffs = append(diffs, Difference{Path: ManifestName, Kind: Missing})
	}
	sum := sha256.Sum256(canonical)
	files := append(slices.Clone(m.Files), File{Path: ManifestName, Size: int64(len(canonical)), Mode: 0o644, SHA256: hex.EncodeToString(sum[:])})
	found := make([][]Difference, len(files))
	err = parallel(ctx, len(files), 0, func(ctx context.Context, i int) error {
		if present[files[i].Path] {
			found[i] = CheckFile(ctx, root, files[i])
		}
		return ctx.Err()
	})
	if err != nil {
		return fmt.Errorf("verify %s: %w", dir, err)
	}
	diffs = append(diffs, slices.Concat(found...)...)
	if len(diffs) == 0 {
		return nil
	}
	slices.SortStableFunc(diffs, func(a, b Difference) int { return compareStrings(a.Path, b.Path) })
	return &VerifyError{Dir: dir, Differences: diffs}
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

// CheckFile is StatFile and, if type and size fit, a look at the content. It
// returns all differences found.
func CheckFile(ctx context.Context, root *os.Root, f File) []Difference {
	var diffs []Difference
	if d, ok := StatFile(root, f); !ok {
		diffs = append(diffs, d)
		if d.Kind != WrongMode {
			return diffs
		}
	}
	in, err := root.Open(f.Path)
	if err != nil {
		return append(diffs, unreadable(f.Path, err))
	}
	defer func() { _ = in.Close() }()
	h := sha256.New()
	if _, err := io.CopyBuffer(h, struct{ io.Reader }{contextReader{ctx, in}}, make([]byte, chunk)); err != nil {
		return append(diffs, unreadable(f.Path, err))
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != f.SHA256 {
		diffs = append(diffs, Difference{Path: f.Path, Kind: WrongSum, Want: f.SHA256, Got: sum})
	}
	return diffs
}

func unreadable(path string, err error) Difference {
	if errors.Is(err, fs.ErrNotExist) {
		return Difference{Path: path, Kind: Missing}
	}
	return Difference{Path: path, Kind: Unreadable, Err: err}
}
