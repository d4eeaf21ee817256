package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// ErrContent is wrapped when a directory or a pack contains something that no
// bundle may contain, or differs from its manifest.
var ErrContent = errors.New("bad bundle content")

// Build returns a copy of m whose Files describe the directory: every regular
// file, sorted and hashed, with mode 0644 or 0755. A file that m already lists
// keeps its Target, Needed and Parts; Build computes the digests of the parts.
// For other files, Target is derived from a name that contains exactly one of
// m.Targets, such as "…_gfx1100.co". Symbolic links and other special files
// are errors. manifest.json is not listed.
func Build(dir string, m Manifest) (*Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundle directory: %w", err)
	}
	defer func() { _ = root.Close() }()

	known := make(map[string]File, len(m.Files))
	for _, f := range m.Files {
		known[f.Path] = f
	}
	out := m
	out.Schema = Schema
	out.Targets = slices.Clone(m.Targets)
	gfx.Sort(out.Targets)
	out.Files = nil
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() || p == ManifestName:
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%w: %s is a %s; a bundle may only contain regular files", ErrContent, p, regfile.Kind(d.Type()))
		}
		k, ok := known[p]
		f, err := describeFile(root, p, k.Parts)
		if err != nil {
			return err
		}
		if ok {
			f.Target, f.Needed = k.Target, slices.Clone(k.Needed)
		} else {
			f.Target = targetInName(p, out.Targets)
		}
		out.Files = append(out.Files, f)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read bundle directory: %w", err)
	}
	slices.SortFunc(out.Files, func(a, b File) int { return compareStrings(a.Path, b.Path) })
	if err := out.Validate(); err != nil {
		return nil, err
	}
	return &out, nil
}

// WriteManifest writes manifest.json into the directory.
func WriteManifest(dir string, m *Manifest) error {
	b, err := m.MarshalCanonical()
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open bundle directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	if err := root.WriteFile(ManifestName, b, 0o644); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	if err := root.Chmod(ManifestName, 0o644); err != nil { // whatever the umask
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// ReadManifest reads and validates the manifest.json of a bundle directory.
func ReadManifest(dir string) (*Manifest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bundle directory: %w", err)
	}
	defer func() { _ = root.Close() }()
	return readManifest(root)
}

func readManifest(root *os.Root) (*Manifest, error) {
	b, err := regfile.ReadIn(root, ManifestName, MaxManifestSize)
	switch {
	case errors.Is(err, regfile.ErrNotRegular), errors.Is(err, regfile.ErrTooLarge):
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	case err != nil:
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return ParseManifest(b)
}

func describeFile(root *os.Root, path string, parts []Part) (File, error) {
	f, err := root.Open(path)
	if err != nil {
		return File{}, err
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil {
		return File{}, err
	}
	out := File{Path: path, Size: st.Size(), Mode: 0o644, Parts: slices.Clone(parts)}
	if err := out.validateExtents(); err != nil {
		return File{}, fmt.Errorf("%w: %s: %w", ErrManifest, path, err)
	}
	h, projections := sha256.New(), newProjector(&out)
	n, err := io.Copy(io.MultiWriter(h, projections), f)
	if err != nil {
		return File{}, err
	}
	if n != st.Size() {
		return File{}, fmt.Errorf("%w: %s changed while it was read", ErrContent, path)
	}
	if st.Mode()&0o111 != 0 {
		out.Mode = 0o755
	}
	out.SHA256 = hex.EncodeToString(h.Sum(nil))
	for i, sum := range projections.sums() {
		out.Parts[i].SHA256 = sum
	}
	return out, nil
}

// targetInName returns the only target that occurs as a word in the path's last
// element, or "". Words are separated by anything but letters and digits.
func targetInName(path string, targets []gfx.Target) gfx.Target {
	base := path[strings.LastIndexByte(path, '/')+1:]
	var found gfx.Target
	for word := range strings.FieldsFuncSeq(base, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	}) {
		t := gfx.Target(word)
		if !slices.Contains(targets, t) || t == found {
			continue
		}
		if found != "" {
			return ""
		}
		found = t
	}
	return found
}
