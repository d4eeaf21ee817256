package bundle

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// layout describes the tar bytes of a frame, except for the content of the files.
// The manifest and the order of the contents in the index determine it completely.
// Pack writes the archive by its layouts and Verify compares the archive with
// them, so that tar unpacks exactly the files that the manifest lists.
type layout struct {
	entries []entry
	mtime   int64 // Unix seconds
	last    bool  // the two zero blocks that end an archive follow the entries
}

// entry is a content of the archive with the files that have it: a regular member,
// and a hard link to it for each further file.
type entry struct {
	files  []File
	stored int64 // bytes after the member's headers, including a sparse map
	sparse bool
}

// headers returns the bytes between the data of entry i-1 and the data of entry i,
// or the end of the frame after the last entry.
func (l *layout) headers(i int) ([]byte, error) {
	var out []byte
	if i > 0 {
		links, err := l.entries[i-1].links(l.mtime)
		if err != nil {
			return nil, err
		}
		out = append(make([]byte, padding(l.entries[i-1].stored)), links...)
	}
	if i < len(l.entries) {
		head, err := l.entries[i].head(l.mtime)
		return append(out, head...), err
	}
	if l.last {
		out = append(out, make([]byte, 2*tarBlock)...)
	}
	return out, nil
}

func (e *entry) head(mtime int64) ([]byte, error) {
	f := &e.files[0]
	t := tarMember{name: f.Path, size: e.stored, mode: f.Mode, mtime: mtime, sparse: e.sparse, real: f.Size}
	return t.headers()
}

func (e *entry) links(mtime int64) ([]byte, error) {
	var out []byte
	for _, f := range e.files[1:] {
		t := tarMember{name: f.Path, mode: f.Mode, mtime: mtime, link: e.files[0].Path}
		h, err := t.headers()
		if err != nil {
			return nil, err
		}
		out = append(out, h...)
	}
	return out, nil
}

// measure returns the size of the frame and the location of each content in it.
func (l *layout) measure() (raw int64, members []member, err error) {
	for i := 0; ; i++ {
		h, err := l.headers(i)
		if err != nil {
			return 0, nil, err
		}
		raw += int64(len(h))
		if i == len(l.entries) {
			return raw, members, nil
		}
		e := &l.entries[i]
		members = append(members, member{Path: e.files[0].Path, Data: raw, Stored: e.stored, Sparse: e.sparse})
		raw += e.stored
	}
}

// check reads the headers before entry i from r and compares them.
func (l *layout) check(r io.Reader, i int, size int64) error {
	want, err := l.headers(i)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if size != int64(len(want)) {
		return fmt.Errorf("%w: %d bytes of tar headers, the manifest requires %d", ErrContent, size, len(want))
	}
	if _, err := io.ReadFull(r, got); err != nil {
		return shortRead(err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: the tar headers differ from the manifest", ErrContent)
	}
	return nil
}

// groupEqual groups the files that are stored once, those of equal content and
// mode, as indices into files. Each empty file has a group of its own.
func groupEqual(files []File) [][]int {
	type key struct {
		sum  string
		mode uint32
	}
	group := make(map[key]int, len(files))
	var out [][]int
	for i := range files {
		k := key{files[i].SHA256, files[i].Mode}
		if g, ok := group[k]; ok && files[i].Size > 0 {
			out[g] = append(out[g], i)
			continue
		}
		group[k] = len(out)
		out = append(out, []int{i})
	}
	return out
}

// layouts returns the layout that each frame of the pack must have. The error wraps
// ErrContent if the pack stores a content differently from Pack.
func (r *Reader) layouts() ([]layout, error) {
	groups := groupEqual(r.manifest.Files)
	stored := make(map[string][]File, len(groups))
	for _, g := range groups {
		files := make([]File, len(g))
		for k, i := range g {
			files[k] = r.manifest.Files[i]
		}
		stored[files[0].Path] = files
	}
	out := make([]layout, len(r.index.Frames))
	out[0].entries = []entry{manifestEntry(r.canonical)}
	members := 0
	for i := range out {
		out[i].mtime = r.manifest.SourceDateEpoch
		out[i].last = i == len(out)-1
		if i == 0 {
			continue
		}
		for _, m := range r.index.Frames[i].Members {
			files, ok := stored[m.Path]
			if !ok {
				return nil, fmt.Errorf("%w: %s is stored, but should be a link to an equal file", ErrContent, m.Path)
			}
			out[i].entries = append(out[i].entries, entry{files: files, stored: m.Stored, sparse: m.Sparse})
			members++
		}
	}
	if members != len(groups) {
		return nil, fmt.Errorf("%w: %d different files in the archive, %d in the manifest", ErrContent, members, len(groups))
	}
	return out, nil
}

func manifestEntry(canonical []byte) entry {
	size := int64(len(canonical))
	return entry{files: []File{{Path: ManifestName, Size: size, Mode: 0o644}}, stored: size}
}

// This file writes tar headers itself, because archive/tar cannot write GNU sparse
// members (pax, version 1.0) and cannot split its stream at frame boundaries. The
// headers follow POSIX.1-2001 ustar and pax, and the chapter "Sparse Formats" of
// the GNU tar manual.

const (
	tarBlock   = 512
	ustarLimit = 1<<33 - 1 // largest size in 11 octal digits
	// maxHeaders limits the header blocks and padding of one member: a pax
	// header, its records with up to three long names, and the ustar header.
	maxHeaders = 4*tarBlock + 4*maxPath

	typeRegular = '0'
	typeLink    = '1'
	typePax     = 'x'
)

// tarMember describes a member of a tar archive.
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

// headers returns the header blocks before the member's data.
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
		size = 0 // the pax record has the size
	}
	h, err := ustar(prefix, short, size, t.mode, t.mtime, kind, link)
	if err != nil {
		return nil, err
	}
	return append(out, h...), nil
}

// sparseName returns the name under which an unpacker without sparse support would
// write the raw data, as GNU tar chooses it.
func sparseName(name string) string {
	i := strings.LastIndexByte(name, '/') + 1
	return name[:i] + "GNUSparseFile.0/" + name[i:]
}

// splitName splits a name into ustar's prefix (155 bytes) and name (100).
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

// octal fills the field with octal digits, leading zeros and a NUL.
func octal(field []byte, v int64) {
	s := strconv.FormatInt(v, 8)
	digits := len(field) - 1
	copy(field, bytes.Repeat([]byte{'0'}, digits))
	copy(field[digits-len(s):digits], s)
	field[digits] = 0
}

// padding returns the number of zero bytes that pad n to whole blocks.
func padding(n int64) int64 { return -n & (tarBlock - 1) }
