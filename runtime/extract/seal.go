package extract

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// A seal records what every file and folder of an installed bundle looked
// like to lstat(2) right after it was written and hashed. The change time is
// what makes it tell: no system call sets it, so a file that was written to,
// replaced, or had its times turned back does not fit its seal any more.
//
// The form is text, one entry a line, with the SHA-256 of all lines before it
// at the end, so that a torn record is no record:
//
//	go-rocm seal 1
//	bundle DIGEST
//	targets gfx1100,gfx1101
//	d . INODE MODE UID MTIME CTIME
//	f libfoo.so SIZE INODE MODE UID MTIME CTIME
//	sum SHA256
type seal struct {
	digest  string
	targets []gfx.Target
	entries []sealEntry // folders first, each kind sorted by path
}

// sealEntry is one lstat result. Times are in nanoseconds since 1970.
type sealEntry struct {
	path         string
	dir          bool
	size         int64 // of files; a folder's means nothing
	inode        uint64
	mode, uid    uint32
	mtime, ctime int64
}

const (
	sealHead = "go-rocm seal 1"
	// maxSealSize bounds a record in bytes; 100 000 files of 1 KiB names fit.
	maxSealSize = 128 << 20
)

var errSeal = errors.New("seal is damaged")

// encode writes the record.
func (s *seal) encode() []byte {
	b := make([]byte, 0, 160*(len(s.entries)+2))
	b = fmt.Appendf(b, "%s\nbundle %s\ntargets %s\n", sealHead, s.digest, gfx.Join(s.targets, ","))
	for i := range s.entries {
		e := &s.entries[i]
		if e.dir {
			b = append(b, "d "...)
		} else {
			b = append(b, "f "...)
		}
		b = append(b, e.path...)
		if !e.dir {
			b = strconv.AppendInt(append(b, ' '), e.size, 10)
		}
		b = strconv.AppendUint(append(b, ' '), e.inode, 10)
		b = strconv.AppendUint(append(b, ' '), uint64(e.mode), 8)
		b = strconv.AppendUint(append(b, ' '), uint64(e.uid), 10)
		b = strconv.AppendInt(append(b, ' '), e.mtime, 10)
		b = strconv.AppendInt(append(b, ' '), e.ctime, 10)
		b = append(b, '\n')
	}
	sum := sha256.Sum256(b)
	return fmt.Appendf(b, "sum %x\n", sum)
}

// parseSeal reads a record. Its error wraps errSeal.
func parseSeal(b []byte) (*seal, error) {
	at := len(b) - len("sum \n") - hex.EncodedLen(sha256.Size)
	if at <= 0 || b[at-1] != '\n' || !bytes.HasPrefix(b[at:], []byte("sum ")) || b[len(b)-1] != '\n' {
		return nil, fmt.Errorf("%w: it ends early", errSeal)
	}
	sum := sha256.Sum256(b[:at])
	if string(b[at+4:len(b)-1]) != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("%w: its sum does not fit", errSeal)
	}
	p := sealParser{rest: string(b[:at])}
	s := &seal{entries: make([]sealEntry, 0, bytes.Count(b, []byte{'\n'}))}
	if p.line() != sealHead {
		return nil, fmt.Errorf("%w: unknown form", errSeal)
	}
	var ok1, ok2 bool
	s.digest, ok1 = strings.CutPrefix(p.line(), "bundle ")
	targets, ok2 := strings.CutPrefix(p.line(), "targets ")
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: bad head", errSeal)
	}
	var err error
	if s.targets, err = gfx.ParseList(targets); err != nil {
		return nil, fmt.Errorf("%w: %w", errSeal, err)
	}
	if s.targets == nil {
		s.targets = []gfx.Target{} // none; nil would mean all
	}
	for p.rest != "" {
		e, ok := p.entry()
		if !ok {
			return nil, fmt.Errorf("%w: bad entry %d", errSeal, len(s.entries))
		}
		s.entries = append(s.entries, e)
	}
	return s, nil
}

// sealParser takes lines and fields off a string without copying them.
type sealParser struct{ rest string }

func (p *sealParser) line() string {
	line, rest, _ := strings.Cut(p.rest, "\n")
	p.rest = rest
	return line
}

func (p *sealParser) entry() (e sealEntry, ok bool) {
	f := fields{rest: p.line()}
	kind := f.next()
	e.path = f.next()
	switch kind {
	case "d":
		e.dir = true
	case "f":
		e.size = f.int()
	default:
		return e, false
	}
	e.inode = f.uint(10, 64)
	e.mode = uint32(f.uint(8, 32)) //nolint:gosec // parsed into 32 bits
	e.uid = uint32(f.uint(10, 32)) //nolint:gosec // parsed into 32 bits
	e.mtime, e.ctime = f.int(), f.int()
	return e, !f.bad && f.rest == "" && e.path != ""
}

type fields struct {
	rest string
	bad  bool
}

func (f *fields) next() string {
	field, rest, _ := strings.Cut(f.rest, " ")
	f.rest = rest
	return field
}

func (f *fields) int() int64 {
	v, err := strconv.ParseInt(f.next(), 10, 64)
	f.bad = f.bad || err != nil
	return v
}

func (f *fields) uint(base, bits int) uint64 {
	v, err := strconv.ParseUint(f.next(), base, bits)
	f.bad = f.bad || err != nil
	return v
}
