package bundle

import (
	"bytes"
	"fmt"
	"io"
)

// layout is what a frame's tar bytes are but for the files' own: the manifest,
// and the order in which the index lists contents, leave nothing open. Pack
// writes the archive by it, and Verify reads by it, so that what tar unpacks is
// what the manifest lists and nothing else.
type layout struct {
	entries []entry
	mtime   int64 // Unix seconds
	last    bool  // the two zero blocks that end an archive follow
}

// entry is a content of the archive with the files that have it: a regular
// member, and a hard link to it for each further file.
type entry struct {
	files  []File
	stored int64 // bytes that follow the member's headers, a sparse map included
	sparse bool
}

// gap returns the bytes before the data of entry i; behind the last one, those
// to the frame's end.
func (l *layout) gap(i int) ([]byte, error) {
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

// measure tells the frame's size and where each content lies in it.
func (l *layout) measure() (raw int64, members []member, err error) {
	for i := 0; ; i++ {
		g, err := l.gap(i)
		if err != nil {
			return 0, nil, err
		}
		raw += int64(len(g))
		if i == len(l.entries) {
			return raw, members, nil
		}
		e := &l.entries[i]
		members = append(members, member{Path: e.files[0].Path, Data: raw, Stored: e.stored, Sparse: e.sparse})
		raw += e.stored
	}
}

// check reads what lies before entry i and compares it.
func (l *layout) check(r io.Reader, i int, size int64) error {
	want, err := l.gap(i)
	if err != nil {
		return err
	}
	got := make([]byte, len(want))
	if size != int64(len(want)) {
		return fmt.Errorf("%w: %d bytes of tar headers where the manifest makes %d", ErrContent, size, len(want))
	}
	if _, err := io.ReadFull(r, got); err != nil {
		return shortRead(err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%w: the tar headers are not those that the manifest makes", ErrContent)
	}
	return nil
}

// alike gathers the files that are stored once, as indices into files: those of
// equal content and mode. An empty file stands alone.
func alike(files []File) [][]int {
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

// layouts returns what every frame of the pack must be. The error wraps
// ErrContent: a content is not in the pack in the way that Pack writes it.
func (r *Reader) layouts() ([]layout, error) {
	groups := alike(r.manifest.Files)
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
				return nil, fmt.Errorf("%w: %s is stored, and not as a link to the file that it equals", ErrContent, m.Path)
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
