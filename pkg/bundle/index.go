package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// The index is a zstd skippable frame at the end of a pack: decoders skip it,
// and a reader finds it from the file's end.
//
//	magic 0x184D2A5E (LE) | payload size (LE, 4 bytes) | JSON | footer
//	footer: SHA-256 of the JSON | JSON size (LE, 8 bytes) | "GOROCMX1"
const (
	skippableMagic = 0x184D2A5E
	indexMagic     = "GOROCMX1"
	footerSize     = sha256.Size + 8 + len(indexMagic)
	maxIndexSize   = 1 << 20 // bytes; each file needs about 120
	indexSchema    = 1
)

// Groups of frames. The other groups are named after their target.
const (
	groupManifest = "manifest"
	groupCore     = "core"
)

// ErrNotPack is wrapped when a file is not a packed bundle or is truncated.
var ErrNotPack = errors.New("not a packed bundle")

type index struct {
	Schema   int     `json:"schema"`
	Manifest string  `json:"manifest"` // the manifest's digest
	Frames   []frame `json:"frames"`
}

// frame is one zstd frame of the pack. It contains whole tar members.
type frame struct {
	Offset  int64    `json:"offset"` // of the packed bytes
	Length  int64    `json:"length"` // packed
	Raw     int64    `json:"raw"`    // unpacked
	Window  int64    `json:"window"` // that a decoder needs, in bytes
	Group   string   `json:"group"`
	Members []member `json:"members"`
}

// member is a file whose content is in the frame. Hard links are not listed:
// a reader finds their content by its hash.
type member struct {
	Path   string `json:"path"`
	Data   int64  `json:"data"`   // offset in the unpacked frame
	Stored int64  `json:"stored"` // bytes there, including a sparse map
	Sparse bool   `json:"sparse,omitempty"`
}

// encode returns the whole skippable frame.
func (x *index) encode() ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(x); err != nil {
		return nil, fmt.Errorf("encode pack index: %w", err)
	}
	if body.Len() > maxIndexSize {
		return nil, fmt.Errorf("pack index of %d bytes: at most %d are allowed", body.Len(), maxIndexSize)
	}
	return indexFrame(body.Bytes()), nil
}

// indexFrame wraps the JSON in a skippable frame.
func indexFrame(body []byte) []byte {
	out := make([]byte, 0, 8+len(body)+footerSize)
	out = binary.LittleEndian.AppendUint32(out, skippableMagic)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(body)+footerSize)) //nolint:gosec // the caller limits it
	out = append(out, body...)
	sum := sha256.Sum256(body)
	out = append(out, sum[:]...)
	out = binary.LittleEndian.AppendUint64(out, uint64(len(body)))
	return append(out, indexMagic...)
}

// readIndex finds and validates the index of a pack of size bytes.
func readIndex(r io.ReaderAt, size int64) (*index, error) {
	if size < int64(footerSize)+8 {
		return nil, fmt.Errorf("%w: %d bytes are too few for one", ErrNotPack, size)
	}
	foot := make([]byte, footerSize)
	if err := readFullAt(r, foot, size-int64(footerSize)); err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	if string(foot[len(foot)-len(indexMagic):]) != indexMagic {
		return nil, fmt.Errorf("%w: no index at its end; the file is truncated, was repacked by another program, or is something else", ErrNotPack)
	}
	n := binary.LittleEndian.Uint64(foot[sha256.Size:])
	if n > maxIndexSize || int64(n) > size-int64(footerSize)-8 {
		return nil, fmt.Errorf("%w: its index claims %d bytes", ErrNotPack, n)
	}
	start := size - int64(footerSize) - int64(n) - 8
	buf := make([]byte, 8+n)
	if err := readFullAt(r, buf, start); err != nil {
		return nil, fmt.Errorf("read pack: %w", err)
	}
	body := buf[8:]
	if binary.LittleEndian.Uint32(buf) != skippableMagic || uint64(binary.LittleEndian.Uint32(buf[4:])) != n+uint64(footerSize) {
		return nil, fmt.Errorf("%w: its index is not in a skippable frame", ErrNotPack)
	}
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], foot[:sha256.Size]) {
		return nil, fmt.Errorf("%w: its index is damaged", ErrNotPack)
	}
	x, err := parseIndex(body)
	if err != nil {
		return nil, err
	}
	if err := x.check(start); err != nil {
		return nil, fmt.Errorf("%w: index: %w", ErrNotPack, err)
	}
	return x, nil
}

func parseIndex(body []byte) (*index, error) {
	if n := countListElements(body); n > maxListElements {
		return nil, fmt.Errorf("%w: index: %d list elements, at most %d are allowed", ErrNotPack, n, maxListElements)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	x := new(index)
	if err := dec.Decode(x); err != nil {
		return nil, fmt.Errorf("%w: index: %w", ErrNotPack, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: index: trailing data", ErrNotPack)
	}
	if x.Schema != indexSchema {
		return nil, fmt.Errorf("%w: index schema %d, this program reads %d", ErrNotPack, x.Schema, indexSchema)
	}
	return x, nil
}

// check validates the frames: together they must cover the packed bytes before
// the index, without gaps.
func (x *index) check(packed int64) error {
	if !isHex(x.Manifest, 64) {
		return fmt.Errorf("manifest digest %q", x.Manifest)
	}
	if len(x.Frames) == 0 || x.Frames[0].Group != groupManifest {
		return errors.New("the first frame is not the manifest")
	}
	var at int64
	for i := range x.Frames {
		f := &x.Frames[i]
		switch {
		case f.Offset != at || f.Length <= 0 || f.Length > packed-at:
			return fmt.Errorf("frame %d at %d+%d, want it at %d", i, f.Offset, f.Length, at)
		case f.Raw < 0 || f.Raw > 2*MaxTotalSize:
			return fmt.Errorf("frame %d claims %d bytes", i, f.Raw)
		case f.Window < 0 || f.Window > MaxWindow:
			return fmt.Errorf("frame %d needs a window of %d bytes, at most %d are allowed", i, f.Window, int64(MaxWindow))
		case !validGroup(f.Group) || (f.Group == groupManifest) != (i == 0):
			return fmt.Errorf("frame %d has the group %q", i, f.Group)
		}
		at += f.Length
		if err := f.checkMembers(); err != nil {
			return fmt.Errorf("frame %d: %w", i, err)
		}
	}
	if at != packed {
		return fmt.Errorf("the frames end at %d of %d bytes", at, packed)
	}
	return nil
}

// decoderWindow returns the window in bytes that a decoder of the frame may use.
// Opening a pack decodes the manifest's frame, so that must need no more than
// the default window.
func (f *frame) decoderWindow() int64 {
	if f.Group == groupManifest {
		return min(f.Window, DefaultWindow)
	}
	return f.Window
}

func (f *frame) checkMembers() error {
	var at int64
	for _, m := range f.Members {
		if m.Data < at+tarBlock || m.Data%tarBlock != 0 || m.Stored < 0 || m.Data > f.Raw || m.Stored > f.Raw-m.Data {
			return fmt.Errorf("member %q at %d+%d of %d", m.Path, m.Data, m.Stored, f.Raw)
		}
		at = m.Data + m.Stored
	}
	return nil
}

func validGroup(g string) bool {
	if g == groupManifest || g == groupCore {
		return true
	}
	_, err := gfx.Parse(g)
	return err == nil && !strings.HasPrefix(g, "-")
}

func readFullAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
