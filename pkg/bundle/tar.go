package bundle

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// The tar members of a pack are written here and not with archive/tar,
// because that package cannot write GNU sparse members (pax, version 1.0) and
// has no way to cut its stream at frame borders. Layout after POSIX.1-2001
// ustar and pax, and the GNU tar manual's chapter "Sparse Formats".

const (
	tarBlock   = 512
	ustarLimit = 1<<33 - 1 // largest size in 11 octal digits
	// maxHeaders bounds the header blocks and padding of one member: a pax
	// header, its records with up to three long names, and the ustar header.
	maxHeaders = 4*tarBlock + 4*maxPath

	typeRegular = '0'
	typeLink    = '1'
	typePax     = 'x'
)

// tarMember is what one header says.
type tarMember struct {
	name  string
	size  int64 // bytes of data that follow in the archive
	mode  uint32
	mtime int64
	link  string // not empty: a hard link to that earlier member
	// sparse: the data is a sparse map and the extents; real is the file's size.
	sparse bool
	real   int64
}

// headers returns the header blocks that go before the member's data.
func (t *tarMember) headers() ([]byte, error) {
	var recs []string
	name := t.name
	if t.sparse {
		recs = append(recs,
			paxRecord("GNU.sparse.major", "1"),
			paxRecord("GNU.sparse.minor", "0"),
			paxRecord("GNU.sparse.name", t.name),
			paxRecord("GNU.sparse.realsize", strconv.FormatInt(t.real, 10)))
		name = sparseName(t.name)
	}
	prefix, short, ok := splitName(name)
	if !ok {
		recs = append(recs, paxRecord("path", name))
		prefix, short = "", name[len(name)-99:]
	}
	link := t.link
	if len(link) > 100 {
		recs = append(recs, paxRecord("linkpath", link))
		link = link[:100]
	}
	if t.size > ustarLimit {
		recs = append(recs, paxRecord("size", strconv.FormatInt(t.size, 10)))
	}
	var out []byte
	if len(recs) > 0 {
		body := strings.Join(recs, "")
		h, err := ustar("PaxHeaders", short, int64(len(body)), 0o644, t.mtime, typePax, "")
		if err != nil {
			return nil, err
		}
		out = append(out, h...)
		out = append(out, body...)
		out = append(out, make([]byte, padding(int64(len(body))))...)
	}
	kind := byte(typeRegular)
	if t.link != "" {
		kind = typeLink
	}
	size := t.size
	if size > ustarLimit {
		size = 0 // the pax record counts
	}
	h, err := ustar(prefix, short, size, t.mode, t.mtime, kind, link)
	if err != nil {
		return nil, err
	}
	return append(out, h...), nil
}

// sparseName is the name an unpacker without sparse support would give to the
// raw data, as GNU tar writes it.
func sparseName(name string) string {
	i := strings.LastIndexByte(name, '/') + 1
	return name[:i] + "GNUSparseFile.0/" + name[i:]
}

// splitName cuts a name into ustar's prefix (155 bytes) and name (100).
func splitName(name string) (prefix, short string, ok bool) {
	if len(name) <= 100 {
		return "", name, true
	}
	for i := 0; i < len(name) && i <= 155; i++ {
		if name[i] == '/' && i > 0 && len(name)-i-1 <= 100 {
			return name[:i], name[i+1:], true
		}
	}
	return "", "", false
}

// paxRecord builds "LEN KEY=VALUE\n", where LEN counts itself.
func paxRecord(key, value string) string {
	rest := len(key) + len(value) + 3 // space, equals sign, newline
	n := rest + len(strconv.Itoa(rest))
	if m := rest + len(strconv.Itoa(n)); m != n {
		n = m
	}
	return fmt.Sprintf("%d %s=%s\n", n, key, value)
}

func ustar(prefix, name string, size int64, mode uint32, mtime int64, kind byte, link string) ([]byte, error) {
	b := make([]byte, tarBlock)
	copy(b[0:100], name)
	octal(b[100:108], int64(mode))
	octal(b[108:116], 0) // uid
	octal(b[116:124], 0) // gid
	octal(b[124:136], size)
	octal(b[136:148], mtime)
	b[156] = kind
	copy(b[157:257], link)
	copy(b[257:265], "ustar\x0000")
	copy(b[265:297], "root")
	copy(b[297:329], "root")
	octal(b[329:337], 0)
	octal(b[337:345], 0)
	copy(b[345:500], prefix)
	if len(prefix) > 155 || len(name) > 100 || len(link) > 100 {
		return nil, fmt.Errorf("tar header of %q: name too long", name)
	}
	sum := 8 * int64(' ')
	for _, c := range b {
		sum += int64(c)
	}
	octal(b[148:155], sum)
	b[155] = ' '
	return b, nil
}

// octal fills the field with zero-led octal digits and a NUL.
func octal(field []byte, v int64) {
	s := strconv.FormatInt(v, 8)
	digits := len(field) - 1
	copy(field, bytes.Repeat([]byte{'0'}, digits))
	copy(field[digits-len(s):digits], s)
	field[digits] = 0
}

// padding is the number of zero bytes that fill n up to whole blocks.
func padding(n int64) int64 { return -n & (tarBlock - 1) }
