// Package release checks the files of a release by what was published with them:
// the list of digests, its signatures, and the provenance.
//
// It also writes those three, so that writing and reading are tested against
// each other. What stands in a provenance is packaging/attest's to say; keys are
// given to this package, and it keeps none.
package release

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// ChecksumsFile is the name of the list of digests, in the folder that it is about.
const ChecksumsFile = "SHA256SUMS"

// ErrChecksums says that a list of digests cannot be read.
var ErrChecksums = errors.New("bad " + ChecksumsFile)

// Checksum is one line of the list: the digest in lower-case hex, and the path
// relative to the list's folder, slash-separated.
type Checksum struct{ SHA256, Path string }

// ComputeChecksums gives the digests of all regular files below dir except the list
// itself, its signatures and names that begin with a dot, sorted by path.
func ComputeChecksums(ctx context.Context, dir string) ([]Checksum, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	defer func() { _ = root.Close() }()
	var out []Checksum
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case strings.HasPrefix(path.Base(name), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || name == ChecksumsFile || strings.HasPrefix(name, ChecksumsFile+"."):
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is no regular file", name)
		case strings.Contains(name, `\`) || strings.ContainsFunc(name, unicode.IsControl):
			return fmt.Errorf("%q cannot stand in a line of %s", name, ChecksumsFile)
		}
		digest, err := digestIn(ctx, root, name)
		out = append(out, Checksum{SHA256: digest, Path: name})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("measure %s: %w", dir, err)
	}
	slices.SortFunc(out, func(a, b Checksum) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// measure gives the digest of one file below dir.
func measure(ctx context.Context, dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("measure: %w", err)
	}
	defer func() { _ = root.Close() }()
	digest, err := digestIn(ctx, root, name)
	if err != nil {
		return "", fmt.Errorf("measure: %w", err)
	}
	return digest, nil
}

func digestIn(ctx context.Context, root *os.Root, name string) (string, error) {
	// To open a FIFO would wait for somebody who writes to it.
	st, err := root.Stat(name)
	if err != nil {
		return "", err
	}
	if !st.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", name)
	}
	f, err := root.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, ctxio.Reader(ctx, f)); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// FormatChecksums writes the list as `sha256sum -c` reads it.
func FormatChecksums(sums []Checksum) []byte {
	var b bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&b, "%s  %s\n", s.SHA256, s.Path)
	}
	return b.Bytes()
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ParseChecksums reads a list. Paths that leave the folder, twice the same path and
// lines of another form are errors that name the line.
func ParseChecksums(r io.Reader) ([]Checksum, error) {
	var out []Checksum
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		digest, name, ok := strings.Cut(lines.Text(), "  ")
		switch {
		case !ok || !hexDigest.MatchString(digest):
			return nil, fmt.Errorf("%w: line %d: want 64 hex digits, two blanks and a path", ErrChecksums, n)
		case name == "." || !fs.ValidPath(name) || strings.ContainsFunc(name, unicode.IsControl): // one could drive a terminal
			return nil, fmt.Errorf("%w: line %d: %q is no path inside the folder", ErrChecksums, n, name)
		case seen[name]:
			return nil, fmt.Errorf("%w: line %d: %q stands there twice", ErrChecksums, n, name)
		}
		seen[name] = true
		out = append(out, Checksum{SHA256: digest, Path: name})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChecksums, err)
	}
	return out, nil
}

// WriteChecksums measures dir and puts the list in it, whole or not at all.
func WriteChecksums(ctx context.Context, dir string) error {
	sums, err := ComputeChecksums(ctx, dir)
	if err != nil {
		return err
	}
	staged := path.Join(dir, "."+ChecksumsFile+".part")
	if err := os.WriteFile(staged, FormatChecksums(sums), 0o644); err != nil { //nolint:gosec // anybody may read what is published
		return fmt.Errorf("write %s: %w", ChecksumsFile, err)
	}
	if err := os.Rename(staged, path.Join(dir, ChecksumsFile)); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", ChecksumsFile, err), os.Remove(staged))
	}
	return nil
}

// ChecksumError says where a folder differs from its list.
type ChecksumError struct {
	Missing  []string // listed, not there
	Changed  []string // there with another digest
	Unlisted []string // there, not listed
}

// Error names every file.
func (e *ChecksumError) Error() string {
	var parts []string
	for _, p := range []struct {
		what  string
		names []string
	}{{"missing", e.Missing}, {"changed", e.Changed}, {"not listed", e.Unlisted}} {
		if len(p.names) > 0 {
			parts = append(parts, p.what+": "+strings.Join(p.names, ", "))
		}
	}
	return "the files are not those of " + ChecksumsFile + ": " + strings.Join(parts, "; ")
}

// compare holds dir against a list. A difference is a *ChecksumError.
func compare(ctx context.Context, dir string, want []Checksum) error {
	have, err := ComputeChecksums(ctx, dir)
	if err != nil {
		return err
	}
	found := map[string]string{}
	for _, s := range have {
		found[s.Path] = s.SHA256
	}
	var diff ChecksumError
	for _, s := range want {
		switch got, ok := found[s.Path]; {
		case !ok:
			diff.Missing = append(diff.Missing, s.Path)
		case got != s.SHA256:
			diff.Changed = append(diff.Changed, s.Path)
		}
		delete(found, s.Path)
	}
	for name := range found {
		diff.Unlisted = append(diff.Unlisted, name)
	}
	slices.Sort(diff.Unlisted)
	if len(diff.Missing)+len(diff.Changed)+len(diff.Unlisted) > 0 {
		return &diff
	}
	return nil
}
