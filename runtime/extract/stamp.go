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

// stamp records the lstat(2) result of every file and directory of an installed
// bundle, right after it was written and hashed. It relies on the change time: no
// system call sets it, so a file no longer matches its stamp after it is written,
// replaced, or its times are set back.
//
// The encoding is text with one entry on each line. The last line has the SHA-256 of
// all lines before it, so that a partly written stamp is invalid:
//
//	go-rocm stamp 1
//	bundle DIGEST
//	targets gfx1100,gfx1101
//	d . INODE MODE UID MTIME CTIME
//	f libfoo.so SIZE INODE MODE UID MTIME CTIME
//	sum SHA256
type stamp struct {
	digest  string
	targets []gfx.Target
	entries []stampEntry // directories first, each kind sorted by path
}

// stampEntry is one lstat result. Times are in nanoseconds since 1970.
type stampEntry struct {
	path         string
	dir          bool
	size         int64 // of files only
	inode        uint64
	mode, uid    uint32
	mtime, ctime int64
}

const (
	stampHeader = "go-rocm stamp 1"
	// maxStampSize limits a stamp, in bytes. It suffices for 100 000 files with
	// names of 1 KiB.
	maxStampSize = 128 << 20
)

var errStamp = errors.New("stamp is damaged")

// encode returns the encoded stamp.
func (s *stamp) encode() []byte {
	b := make([]byte, 0, 160*(len(s.entries)+2))
	b = fmt.Appendf(b, "%s\nbundle %s\ntargets %s\n", stampHeader, s.digest, gfx.Join(s.targets, ","))
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

// parseStamp decodes a stamp. The error wraps errStamp.
func parseStamp(b []byte) (*stamp, error) {
	at := len(b) - len("sum \n") - hex.EncodedLen(sha256.Size)
	if at <= 0 || b[at-1] != '\n' || !bytes.HasPrefix(b[at:], []byte("sum ")) || b[len(b)-1] != '\n' {
		return nil, fmt.Errorf("%w: unexpected end", errStamp)
	}
	sum := sha256.Sum256(b[:at])
	if string(b[at+4:len(b)-1]) != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("%w: wrong checksum", errStamp)
	}
	p := stampParser{rest: string(b[:at])}
	s := &stamp{entries: make([]stampEntry, 0, bytes.Count(b, []byte{'\n'}))}
	if p.line() != stampHeader {
		return nil, fmt.Errorf("%w: unknown version", errStamp)
	}
	var ok1, ok2 bool
	s.digest, ok1 = strings.CutPrefix(p.line(), "bundle ")
	targets, ok2 := strings.CutPrefix(p.line(), "targets ")
	if !ok1 || !ok2 {
		return nil, fmt.Errorf("%w: bad header", errStamp)
	}
	var err error
	if s.targets, err = gfx.ParseList(targets); err != nil {
		return nil, fmt.Errorf("%w: %w", errStamp, err)
	}
	if s.targets == nil {
		s.targets = []gfx.Target{} // nil would mean all
	}
	for p.rest != "" {
		e, ok := p.entry()
		if !ok {
			return nil, fmt.Errorf("%w: bad entry %d", errStamp, len(s.entries))
		}
		s.entries = append(s.entries, e)
	}
	return s, nil
}

// stampParser splits a string into lines without copying them.
type stampParser struct{ rest string }

func (p *stampParser) line() string {
	line, rest, _ := strings.Cut(p.rest, "\n")
	p.rest = rest
	return line
}

func (p *stampParser) entry() (e stampEntry, ok bool) {
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
