package download

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// state is what came of a file. Its JSON form is beside the partial file.
type state struct {
	URL string `json:"url"` // see stateAddress
	identity
	Chunk int64  `json:"chunk"` // bytes of a chunk; the last may be shorter
	Done  []byte `json:"done"`  // a bit for each chunk, the lowest first

	complete int // chunks before the first missing one
}

// maxState limits the file of a state, in bytes: for 16 TiB in chunks of 16 MiB.
const maxState = 1 << 20

// loadState returns the state of an earlier transfer, or an empty one where there
// is none that can be continued. In that case it empties the file.
func loadState(src Source, dst Target, chunk int64) (state, error) {
	empty := state{URL: stateAddress(&src), Chunk: chunk, identity: identity{Size: src.Size, expected: src.Size >= 0}}
	if dst.StatePath != "" {
		raw, err := regfile.Read(dst.StatePath, maxState)
		var s state
		if err == nil && json.Unmarshal(raw, &s) == nil && s.continues(src, dst.File, chunk) {
			s.expected = empty.expected
			s.countPrefix()
			return s, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, regfile.ErrTooLarge) {
			return empty, err
		}
	}
	return empty, dst.empty()
}

// stateAddress returns what a state says of the address. A query often is a signature
// that ends: it is not stored, and for a file whose digest is known an address with
// another one continues the download. Otherwise it may name another file.
func stateAddress(src *Source) string {
	address, query, ok := strings.Cut(src.URL, "?")
	if !ok || src.SHA256 != "" {
		return address
	}
	sum := sha256.Sum256([]byte(query))
	return address + "?" + hex.EncodeToString(sum[:])
}

// empty forgets the state and empties the file, in this order: a state that outlives
// this process, or a power failure, must be true of the file.
func (dst Target) empty() error {
	if dst.StatePath != "" {
		err := os.Remove(dst.StatePath)
		if err == nil {
			err = syncDir(filepath.Dir(dst.StatePath))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return dst.File.Truncate(0)
}

func syncDir(name string) error {
	root, err := os.OpenRoot(name)
	if err != nil {
		return err
	}
	return errors.Join(fsync.Dir(root, "."), root.Close())
}

// continues reports whether a state belongs to the file and the source. A file of
// which neither the digest nor a tag is known may have changed.
func (s *state) continues(src Source, file *os.File, chunk int64) bool {
	info, err := file.Stat()
	return err == nil && s.URL == stateAddress(&src) && s.Chunk == chunk && s.Size > 0 && info.Size() == s.Size && (src.Size < 0 || src.Size == s.Size) &&
		len(s.Done) == (s.chunks()+7)/8 && (src.SHA256 != "" || s.ETag != "" || s.Modified != "")
}

// begin sets what the first answer said.
func (s *state) begin(id identity) {
	s.identity = id
	s.clear()
}

func (s *state) clear() { s.Done, s.complete = make([]byte, (s.chunks()+7)/8), 0 }

// chunks returns the number of chunks; 0: the size is not known.
func (s *state) chunks() int {
	if s.Size <= 0 {
		return 0
	}
	return int((s.Size-1)/s.Chunk) + 1
}

func (s *state) has(i int) bool { return i/8 < len(s.Done) && s.Done[i/8]&(1<<(i%8)) != 0 }

func (s *state) mark(i int) {
	s.Done[i/8] |= 1 << (i % 8)
	s.countPrefix()
}

func (s *state) countPrefix() {
	for s.complete < s.chunks() && s.has(s.complete) {
		s.complete++
	}
}

// prefix returns the number of bytes before the first missing one.
func (s *state) prefix() int64 {
	if s.complete == 0 {
		return 0
	}
	return min(int64(s.complete)*s.Chunk, s.Size)
}

// missing returns the number of missing chunks.
func (s *state) missing() int {
	n := 0
	for i := s.complete; i < s.chunks(); i++ {
		if !s.has(i) {
			n++
		}
	}
	return n
}

// bytes returns the number of bytes that came.
func (s *state) bytes() int64 {
	var sum int64
	for i := range s.chunks() {
		if s.has(i) {
			sum += min(int64(i+1)*s.Chunk, s.Size) - int64(i)*s.Chunk
		}
	}
	return sum
}

// save writes the state. The chunks in it are on the disk before it is, so that it
// is true after a power failure too.
func (t *transfer) save() error {
	t.saving.Lock()
	defer t.saving.Unlock()
	t.mu.Lock()
	raw, err := json.Marshal(&t.state)
	prepared := t.prepared
	t.mu.Unlock()
	if err != nil || !prepared || t.dst.StatePath == "" {
		return err
	}
	if err := t.dst.File.Sync(); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(t.dst.StatePath), ".state-*")
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), t.dst.StatePath)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("note what came: %w", err)
	}
	return nil
}

// discard forgets everything that came.
func (t *transfer) discard() error { return t.dst.empty() }
