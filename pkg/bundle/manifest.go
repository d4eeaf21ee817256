package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Schema is the manifest version that this package reads and writes.
const Schema = 1

// ManifestName is the manifest's file name inside a bundle directory.
const ManifestName = "manifest.json"

// MaxManifestSize limits the manifest, in bytes, so that a hostile pack cannot
// make a reader allocate without limit. The manifest of the hip bundle for two
// targets has 96 KB.
const MaxManifestSize = 2 << 20

// Flavours of a bundle.
const (
	// FlavourHermetic contains its whole user space, including the loader.
	FlavourHermetic = "hermetic"
	// FlavourSystem uses the host's ROCm, see Manifest.Host. It contains its own
	// loader and C and C++ libraries.
	FlavourSystem = "system"
)

// ErrManifest is wrapped by every error about a manifest's content.
var ErrManifest = errors.New("bad bundle manifest")

// Manifest describes a bundle: its files and the inputs they were built from.
type Manifest struct {
	// Schema is [Schema].
	Schema int `json:"schema"`
	// Name is the bundle's name, such as "llama-hip".
	Name string `json:"name"`
	// Variant is the compute backend: "hip", "cpu", "vulkan" …
	Variant string `json:"variant"`
	// Flavour is FlavourHermetic or FlavourSystem.
	Flavour string `json:"flavour"`
	// Version is the version of the packed program, such as "v0.5.0".
	Version string `json:"version"`
	// Targets are the GPU targets with code in the bundle, in gfx.Compare order.
	Targets []gfx.Target `json:"targets,omitempty"`
	// Source identifies the compiled source tree.
	Source Source `json:"source"`
	// Toolchain describes the compilers and libraries of the build.
	Toolchain Toolchain `json:"toolchain"`
	// Stages are the build stages in the order they ran.
	Stages []Stage `json:"stages,omitempty"`
	// SourceDateEpoch is the only time that the build uses, in Unix seconds.
	SourceDateEpoch int64 `json:"sourceDateEpoch"`
	// Entry names the files that start the server.
	Entry Entry `json:"entry"`
	// Files are all files but the manifest, sorted by path.
	Files []File `json:"files"`
	// CodeObjects counts GPU code by file and target, sorted by both.
	CodeObjects []CodeObjects `json:"codeObjects,omitempty"`
	// Excluded lists files that were left out on purpose, sorted by name.
	Excluded []Excluded `json:"excluded,omitempty"`
	// Host describes the requirements of a system bundle on its host; nil for a
	// hermetic bundle.
	Host *Host `json:"host,omitempty"`
}

// Host describes the requirements of a system bundle on the machine it runs on.
type Host struct {
	// ROCm is the release that the bundle was built with, such as "6.4.3".
	ROCm string `json:"rocm"`
	// Libraries are the libraries that the bundle needs from the host, sorted by
	// SONAME.
	Libraries []HostLibrary `json:"libraries"`
	// Provides are the highest symbol versions that the bundle's own libraries
	// define, one of each kind, sorted, such as "GLIBC_2.43". A library of the
	// host that needs a higher version is too new for this bundle.
	Provides []string `json:"provides"`
}

// HostLibrary is a shared library of the host that the bundle needs.
type HostLibrary struct {
	SONAME   string   `json:"soname"`
	NeededBy []string `json:"neededBy"` // files of the bundle
	// Versions are the symbol versions that those files need, sorted.
	Versions []string `json:"versions,omitempty"`
	// Debian and AMD are the packages that contain the library, in the archives
	// of Debian and Ubuntu and in AMD's archive.
	Debian string `json:"debian,omitempty"`
	AMD    string `json:"amd,omitempty"`
}

// Source identifies a source tree. Tree is a git tree hash in hex, which does not
// depend on how the tree was fetched.
type Source struct {
	Tag  string `json:"tag,omitempty"`
	URL  string `json:"url,omitempty"`
	Tree string `json:"tree,omitempty"`
}

// Toolchain describes the compilers and libraries of a build.
type Toolchain struct {
	// Kind is the recipe's toolchain, such as "debian-forky". The suffix "-image"
	// marks an image chosen by the user.
	Kind string `json:"kind,omitempty"`
	// BaseDigest is the content digest, "sha256:…", of the build image if it was
	// made from a given image.
	BaseDigest string `json:"baseDigest,omitempty"`
	// Locked is true when every package matched the lock.
	Locked bool `json:"locked"`
	// Packages are sorted by name, architecture and version.
	Packages []Package `json:"packages,omitempty"`
	// Deviations describes, in sentences, how the toolchain differs from its lock.
	Deviations []string `json:"deviations,omitempty"`
}

// Package is one distribution package of the toolchain.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
}

// Stage is one step of the build: the digest of its inputs, its options and
// environment, and the digest of its output.
type Stage struct {
	Name    string   `json:"name"`
	Digest  string   `json:"digest"`
	Options []string `json:"options,omitempty"`
	Env     []string `json:"env,omitempty"`
	Output  string   `json:"output,omitempty"`
}

// Entry names the files that start the server. A hermetic bundle runs
// `Loader --library-path DIR DIR/Program`. Without a Loader, Program runs alone.
type Entry struct {
	Loader  string `json:"loader,omitempty"`
	Program string `json:"program"`
}

// File is one file of the bundle.
type File struct {
	// Path is relative to the bundle's directory, slash-separated.
	Path string `json:"path"`
	// Size is in bytes, including the holes of a sparse file.
	Size int64 `json:"size"`
	// Mode has permission bits only; Build sets 0644 or 0755.
	Mode uint32 `json:"mode"`
	// SHA256 is the lower-case hex digest of the content.
	SHA256 string `json:"sha256"`
	// Target is set if only that GPU target needs the file.
	Target gfx.Target `json:"target,omitempty"`
	// Parts describe the code of a file with code for several targets: either
	// one part for each of the manifest's targets, in that order, or none.
	Parts []Part `json:"parts,omitempty"`
	// Needed lists the libraries that an ELF file needs (DT_NEEDED), in order.
	Needed []string `json:"needed,omitempty"`
}

// CodeObjects counts the GPU code for one target in one file.
type CodeObjects struct {
	File    string     `json:"file"`
	Target  gfx.Target `json:"target"`
	Bytes   int64      `json:"bytes"`
	Kernels int        `json:"kernels"`
}

// Excluded is a library or file that was left out, and the reason.
type Excluded struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// MarshalCanonical validates the manifest and returns its canonical form:
// compact JSON in field order and a newline. manifest.json contains these bytes.
func (m *Manifest) MarshalCanonical() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return m.marshal()
}

func (m *Manifest) marshal() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return buf.Bytes(), nil
}

// Digest returns the SHA-256 of the canonical form in hex: the bundle's
// content address. It is empty for an invalid manifest.
func (m *Manifest) Digest() string {
	b, err := m.MarshalCanonical()
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// ParseManifest reads a manifest in canonical form. Unknown fields, repeated
// keys, another order and extra space are errors, so that the digest of the
// bytes equals the digest of the manifest.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrManifest, len(b), MaxManifestSize)
	}
	if n := countListElements(b); n > maxListElements {
		return nil, fmt.Errorf("%w: %d list elements, at most %d are allowed", ErrManifest, n, maxListElements)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	m := new(Manifest)
	if err := dec.Decode(m); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: unexpected end", ErrManifest)
		}
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	if m.Schema != Schema {
		return nil, fmt.Errorf("%w: schema %d, this program reads schema %d; use the go-rocm release that made it", ErrManifest, m.Schema, Schema)
	}
	canonical, err := m.MarshalCanonical()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(b, canonical) {
		return nil, fmt.Errorf("%w: it is not in canonical form; write it with Manifest.MarshalCanonical", ErrManifest)
	}
	return m, nil
}

// File returns the file with that path.
func (m *Manifest) File(path string) (File, bool) {
	i, ok := slices.BinarySearchFunc(m.Files, path, func(f File, p string) int { return compareStrings(f.Path, p) })
	if !ok {
		return File{}, false
	}
	return m.Files[i], true
}

// Size returns the sum of all file sizes in bytes, including holes.
func (m *Manifest) Size() int64 {
	var n int64
	for i := range m.Files {
		n += m.Files[i].Size
	}
	return n
}

// ForTargets returns a selector for the core files and the files of the targets.
// A nil slice selects every file, an empty slice the core files alone.
func ForTargets(targets []gfx.Target) func(File) bool {
	if targets == nil {
		return func(File) bool { return true }
	}
	return func(f File) bool { return f.Target == "" || slices.Contains(targets, f.Target) }
}

// maxListElements limits the elements of all lists of a manifest or an index. An
// element of two bytes can need a hundred bytes of memory once it is decoded. The
// hip bundle for two targets has about two thousand elements.
const maxListElements = 1 << 15

// countListElements counts the commas in the lists of a JSON text.
func countListElements(text []byte) int {
	n, quoted := 0, false
	var open []byte // the brackets around the byte, outermost first
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '[' || c == '{':
			open = append(open, c)
		case (c == ']' || c == '}') && len(open) > 0:
			open = open[:len(open)-1]
		case c == ',' && len(open) > 0 && open[len(open)-1] == '[':
			n++
		}
	}
	return n
}
