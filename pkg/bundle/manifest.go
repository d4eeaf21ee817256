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

// ManifestName is the manifest's file name inside a bundle folder.
const ManifestName = "manifest.json"

// MaxManifestSize bounds the manifest in bytes, so that a hostile pack cannot
// make a reader allocate without limit. That of the hip bundle for two targets
// has 96 KB.
const MaxManifestSize = 2 << 20

// Flavours of a bundle.
const (
	// FlavourHermetic carries its whole user space, the loader included.
	FlavourHermetic = "hermetic"
	// FlavourSystem takes ROCm from the host, see Manifest.Host; the loader and
	// the C and C++ libraries are its own.
	FlavourSystem = "system"
)

// ErrManifest is wrapped by every error about a manifest's content.
var ErrManifest = errors.New("bad bundle manifest")

// Manifest says what a bundle holds and what it was made from.
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
	// Source pins the compiled source tree.
	Source Source `json:"source"`
	// Toolchain lists what compiled it.
	Toolchain Toolchain `json:"toolchain"`
	// Stages are the build stages in the order they ran.
	Stages []Stage `json:"stages,omitempty"`
	// SourceDateEpoch is the build's only notion of time, in Unix seconds.
	SourceDateEpoch int64 `json:"sourceDateEpoch"`
	// Entry names the files that start the server.
	Entry Entry `json:"entry"`
	// Files are all files but the manifest, sorted by path.
	Files []File `json:"files"`
	// CodeObjects counts GPU code per file and target, sorted by both.
	CodeObjects []CodeObjects `json:"codeObjects,omitempty"`
	// Excluded lists what was left out on purpose, sorted by name.
	Excluded []Excluded `json:"excluded,omitempty"`
	// Host is what a bundle of the system flavour asks of its host; nil where it
	// asks for nothing, as a hermetic one does.
	Host *Host `json:"host,omitempty"`
}

// Host is what a bundle of the system flavour asks of the machine it runs on.
type Host struct {
	// ROCm is the release that the bundle was built with, such as "6.4.3".
	ROCm string `json:"rocm"`
	// Libraries are those that files of the bundle name and that must be on the
	// host, sorted by SONAME.
	Libraries []HostLibrary `json:"libraries"`
	// Provides are the highest symbol versions that the bundle's own libraries
	// define, one of each kind, sorted, such as "GLIBC_2.43". A library of the
	// host that asks for more is too new for this bundle.
	Provides []string `json:"provides"`
}

// HostLibrary is a shared library taken from the host.
type HostLibrary struct {
	SONAME   string   `json:"soname"`
	NeededBy []string `json:"neededBy"` // files of the bundle
	// Versions are the symbol versions that those ask of it, sorted.
	Versions []string `json:"versions,omitempty"`
	// Debian and AMD name the packages that hold it, in the archives of Debian
	// and Ubuntu and in AMD's.
	Debian string `json:"debian,omitempty"`
	AMD    string `json:"amd,omitempty"`
}

// Source pins a source tree. Tree is a git tree hash in hex, which does not
// depend on how the tree arrived.
type Source struct {
	Tag  string `json:"tag,omitempty"`
	URL  string `json:"url,omitempty"`
	Tree string `json:"tree,omitempty"`
}

// Toolchain describes the compilers and libraries of a build.
type Toolchain struct {
	// Kind names the recipe's toolchain, such as "debian-forky"; with "-image"
	// at its end it is an image that the user has named.
	Kind string `json:"kind,omitempty"`
	// BaseDigest is the content digest, "sha256:…", of the image that was
	// compiled in, where that was made from a given one.
	BaseDigest string `json:"baseDigest,omitempty"`
	// Locked is true when every package matched the lock.
	Locked bool `json:"locked"`
	// Packages are sorted by name, architecture and version.
	Packages []Package `json:"packages,omitempty"`
	// Deviations says in words where the toolchain left its lock.
	Deviations []string `json:"deviations,omitempty"`
}

// Package is one distribution package of the toolchain.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch,omitempty"`
	SHA256  string `json:"sha256,omitempty"`
}

// Stage is one step of the build: the digest of its inputs, what was asked of
// it, and the digest of its output.
type Stage struct {
	Name    string   `json:"name"`
	Digest  string   `json:"digest"`
	Options []string `json:"options,omitempty"`
	Env     []string `json:"env,omitempty"`
	Output  string   `json:"output,omitempty"`
}

// Entry names the files that start the server. A hermetic bundle runs
// `Loader --library-path DIR DIR/Program`; without a Loader, Program is run.
type Entry struct {
	Loader  string `json:"loader,omitempty"`
	Program string `json:"program"`
}

// File is one file of the bundle.
type File struct {
	// Path is relative to the bundle's folder, slash-separated.
	Path string `json:"path"`
	// Size is in bytes, holes of a sparse file included.
	Size int64 `json:"size"`
	// Mode holds permission bits only: 0644 or 0755 as Build writes them.
	Mode uint32 `json:"mode"`
	// SHA256 is the lower-case hex digest of the content.
	SHA256 string `json:"sha256"`
	// Target is set when only that GPU target needs the file.
	Target gfx.Target `json:"target,omitempty"`
	// Parts tell, for a file with code for several targets, what each alone
	// needs: one part for each of the manifest's targets, in that order, or
	// none at all.
	Parts []Part `json:"parts,omitempty"`
	// Needed lists the libraries an ELF file asks for (DT_NEEDED), in order.
	Needed []string `json:"needed,omitempty"`
}

// CodeObjects counts the GPU code for one target in one file.
type CodeObjects struct {
	File    string     `json:"file"`
	Target  gfx.Target `json:"target"`
	Bytes   int64      `json:"bytes"`
	Kernels int        `json:"kernels"`
}

// Excluded is a library or file left out, with the reason.
type Excluded struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// MarshalCanonical validates the manifest and returns its one canonical form:
// compact JSON in field order and a newline. manifest.json holds these bytes.
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
// content address. It is empty for a manifest that does not validate.
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
// bytes is the digest of the manifest.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifestSize {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrManifest, len(b), MaxManifestSize)
	}
	if n := elements(b); n > maxElements {
		return nil, fmt.Errorf("%w: %d elements of lists, at most %d are allowed", ErrManifest, n, maxElements)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	m := new(Manifest)
	if err := dec.Decode(m); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, fmt.Errorf("%w: it ends early", ErrManifest)
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

// Size returns the sum of all file sizes in bytes, holes included.
func (m *Manifest) Size() int64 {
	var n int64
	for i := range m.Files {
		n += m.Files[i].Size
	}
	return n
}

// ForTargets returns a selector for the core files and those of the targets.
// A nil slice selects every file, an empty one the core files alone.
func ForTargets(targets []gfx.Target) func(File) bool {
	if targets == nil {
		return func(File) bool { return true }
	}
	return func(f File) bool { return f.Target == "" || slices.Contains(targets, f.Target) }
}
