// Package release verifies the files of a release with what was published beside
// them: the list of checksums, its signatures, and the provenance.
//
// It also writes these three, so that writing and reading are tested against each
// other. packaging/attest defines the contents of a provenance. The package stores
// no keys.
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
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// ChecksumsFile is the name of the list of checksums, at the top of a release.
const ChecksumsFile = "SHA256SUMS"

// ErrChecksums reports a list of checksums that is missing or invalid.
var ErrChecksums = errors.New("invalid " + ChecksumsFile)

// Checksum is a line of the list: the digest in lower-case hex, and the
// slash-separated path relative to the directory of the list.
type Checksum struct{ SHA256, Path string }

// ComputeChecksums returns the checksums of all regular files below dir, sorted by
// path, except the list itself, its signatures and names that begin with a dot.
func ComputeChecksums(ctx context.Context, dir string) ([]Checksum, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("compute checksums: %w", err)
	}
	defer func() { _ = root.Close() }()
	var out []Checksum
	err = walkFiles(root, func(name string) error {
		if strings.HasPrefix(name, ChecksumsFile+".") {
			return nil
		}
		digest, err := digestIn(ctx, root, name)
		out = append(out, Checksum{SHA256: digest, Path: name})
		return err
	}, isHidden)
	if err != nil {
		return nil, fmt.Errorf("compute checksums of %s: %w", dir, err)
	}
	slices.SortFunc(out, func(a, b Checksum) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// isHidden reports whether a file or directory is left out of the list, such as the
// files that a build writes before it renames them.
func isHidden(name string) bool { return strings.HasPrefix(path.Base(name), ".") }

// walkFiles calls visit with each file below root except the list itself, and those
// that skip reports or that are below a directory that it reports. Files that no list
// can contain are errors.
func walkFiles(root *os.Root, visit func(name string) error, skip func(name string) bool) error {
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case skip(name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || name == ChecksumsFile:
			return nil
		case strings.Contains(name, `\`) || strings.ContainsFunc(name, unicode.IsControl):
			return fmt.Errorf("%q cannot be listed in %s", name, ChecksumsFile)
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file", name)
		}
		return visit(name)
	})
}

// fileDigest returns the digest of a file below dir.
func fileDigest(ctx context.Context, dir, name string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fmt.Errorf("compute checksums: %w", err)
	}
	defer func() { _ = root.Close() }()
	digest, err := digestIn(ctx, root, name)
	if err != nil {
		return "", fmt.Errorf("compute checksums: %w", err)
	}
	return digest, nil
}

func digestIn(ctx context.Context, root *os.Root, name string) (string, error) {
	f, err := regfile.OpenIn(root, name)
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

// FormatChecksums returns the list in the format of `sha256sum -c`.
func FormatChecksums(sums []Checksum) []byte {
	var b bytes.Buffer
	for _, s := range sums {
		fmt.Fprintf(&b, "%s  %s\n", s.SHA256, s.Path)
	}
	return b.Bytes()
}

var hexDigest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// ParseChecksums parses a list. Errors contain the line number; duplicate paths and
// paths outside the directory are errors.
func ParseChecksums(r io.Reader) ([]Checksum, error) {
	var out []Checksum
	seen := map[string]bool{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		digest, name, ok := strings.Cut(lines.Text(), "  ")
		switch {
		case !ok || !hexDigest.MatchString(digest):
			return nil, fmt.Errorf("%w: line %d: want 64 hex digits, two spaces and a path", ErrChecksums, n)
		case name == "." || !fs.ValidPath(name) || strings.ContainsFunc(name, unicode.IsControl): // could control a terminal
			return nil, fmt.Errorf("%w: line %d: %q is not a path inside the directory", ErrChecksums, n, name)
		case seen[name]:
			return nil, fmt.Errorf("%w: line %d: duplicate path %q", ErrChecksums, n, name)
		}
		seen[name] = true
		out = append(out, Checksum{SHA256: digest, Path: name})
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChecksums, err)
	}
	return out, nil
}

// WriteChecksums computes the checksums of dir and writes the list there atomically.
func WriteChecksums(ctx context.Context, dir string) error {
	sums, err := ComputeChecksums(ctx, dir)
	if err != nil {
		return err
	}
	staged := path.Join(dir, "."+ChecksumsFile+".part")
	if err := os.WriteFile(staged, FormatChecksums(sums), 0o644); err != nil { //nolint:gosec // published files are world-readable
		return fmt.Errorf("write %s: %w", ChecksumsFile, err)
	}
	if err := os.Rename(staged, path.Join(dir, ChecksumsFile)); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", ChecksumsFile, err), os.Remove(staged))
	}
	return nil
}

// ChecksumError reports how a directory differs from its list.
type ChecksumError struct {
	Missing  []string // listed but absent
	Changed  []string // present with another digest
	Unlisted []string // present but not listed
}

// Error lists every file.
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
	return "the files do not match " + ChecksumsFile + ": " + strings.Join(parts, "; ")
}

// compare compares dir with a list. A difference is a *ChecksumError. Only the list
// and its signatures need not be listed: unlike ComputeChecksums, it leaves out no
// names, since anyone could add such files.
func compare(ctx context.Context, dir string, want []Checksum) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("compute checksums: %w", err)
	}
	defer func() { _ = root.Close() }()
	listed := map[string]string{}
	for _, s := range want {
		listed[s.Path] = s.SHA256
	}
	var diff ChecksumError
	err = walkFiles(root, func(name string) error {
		digest, ok := listed[name]
		delete(listed, name)
		switch {
		case ok:
			got, err := digestIn(ctx, root, name)
			if err == nil && got != digest {
				diff.Changed = append(diff.Changed, name)
			}
			return err
		case name != MinisignFile && name != OpenPGPFile:
			diff.Unlisted = append(diff.Unlisted, name)
		}
		return ctx.Err()
	}, func(string) bool { return false })
	if err != nil {
		return fmt.Errorf("compute checksums of %s: %w", dir, err)
	}
	diff.Missing = slices.Collect(maps.Keys(listed))
	slices.Sort(diff.Missing)
	if len(diff.Missing)+len(diff.Changed)+len(diff.Unlisted) > 0 {
		return &diff
	}
	return nil
}
