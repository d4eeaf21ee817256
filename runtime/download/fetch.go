package download

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
)

// Source is a file on a server, and what is known about it.
type Source struct {
	URL string
	// Size is the expected size in bytes; -1: not known.
	Size int64
	// SHA256 is the expected digest in lower case; empty: not known.
	SHA256 string
	// Check decides about a file of size bytes by its beginning, before the rest is
	// fetched; nil: nothing is checked. It is called again with more of the file
	// when it read past what came. Its error ends the download.
	Check func(r io.ReaderAt, size int64) error
}

// address returns the address for messages, without its query.
func (s *Source) address() string {
	address, _, _ := strings.Cut(s.URL, "?")
	return address
}

// Target is where a file is written.
type Target struct {
	// File is open for reading and writing. It may have the content of an earlier,
	// incomplete Fetch.
	File *os.File
	// StatePath is the path of a small file with what came; empty: the download
	// cannot be continued by another process.
	StatePath string
	// Progress is called, a few times in a second, with the number of bytes that
	// came and of all; nil: nothing is called.
	Progress func(done, total int64)
}

// Result describes a file that was fetched.
type Result struct {
	Size   int64
	SHA256 string // of the bytes that came; equal to Source.SHA256, if that is known
}

const (
	maxRestarts    = 3
	progressPeriod = 200 * time.Millisecond
	bufferSize     = 256 << 10
	chunksPerSave  = 16
	chunksPerReq   = 16
	spaceForOthers = 64 << 20 // bytes of the disk that are left free
)

// Fetch fetches src into dst. After an error that a later call may overcome, dst has
// what came. The error wraps ErrDigest for a file with another digest, which is
// emptied, ErrChanged for one that changes again and again, ErrSize, ErrAnswer,
// ErrSpace, ErrRedirect, a [StatusError], or is that of Check, of the network or of
// the disk.
func (c *Client) Fetch(ctx context.Context, src Source, dst Target) (Result, error) {
	for restarts := 0; ; restarts++ {
		t, err := c.newTransfer(src, dst)
		if err != nil {
			return Result{}, err
		}
		sum, err := t.run(ctx)
		damaged := errors.Is(err, ErrDigest)
		switch {
		case err == nil:
			return Result{Size: t.state.Size, SHA256: sum}, nil
		case errors.Is(err, ErrChanged) && restarts < maxRestarts, damaged && t.resumed && restarts == 0:
			c.logger().Warn("the download starts again", "cause", err.Error())
			if err := t.discard(); err != nil {
				return Result{}, err
			}
		case damaged:
			return Result{}, errors.Join(err, t.discard())
		default:
			return Result{}, errors.Join(err, t.save())
		}
	}
}

// transfer is one attempt at a file.
type transfer struct {
	c   *Client
	src Source
	dst Target

	resumed bool // something came in an earlier process or attempt
	whole   bool // the server knows no ranges
	checked int64

	mu       sync.Mutex
	state    state
	prepared bool
	next     int // no chunk before this one is free
	marked   int // chunks since the last save
	count    int64
	shown    time.Time

	saving sync.Mutex
	hash   *prefixHash
}

func (c *Client) newTransfer(src Source, dst Target) (*transfer, error) {
	t := &transfer{c: c, src: src, dst: dst}
	s, err := loadState(src, dst, cmp.Or(c.ChunkSize, defaultChunk))
	if err != nil {
		return nil, err
	}
	t.state = s
	t.count = s.bytes()
	t.resumed, t.prepared = t.count > 0, t.count > 0
	return t, nil
}

func (t *transfer) run(ctx context.Context) (sum string, err error) {
	t.hash = newPrefixHash(t.dst.File)
	defer t.hash.stop()
	t.hash.advance(t.state.prefix())
	if err := t.fetchBeginning(ctx); err != nil {
		return "", err
	}
	if !t.whole {
		if err := t.fetchRest(ctx); err != nil {
			return "", err
		}
	}
	raw, err := t.hash.sum(ctx, t.state.Size)
	if err != nil {
		return "", err
	}
	sum = hex.EncodeToString(raw)
	if t.src.SHA256 != "" && sum != t.src.SHA256 {
		return "", fmt.Errorf("%w: it is %s, want %s", ErrDigest, sum, t.src.SHA256)
	}
	t.show(true)
	return sum, nil
}

// fetchBeginning fetches chunk after chunk until Check has decided.
func (t *transfer) fetchBeginning(ctx context.Context) error {
	for {
		have := t.state.prefix()
		decided, err := t.check(have)
		if err != nil || decided || t.prepared && have == t.state.Size {
			return err
		}
		i := int(have / t.state.Chunk)
		if err := t.fetchChunks(ctx, i, i+1); err != nil {
			return err
		}
	}
}

// check calls Check with the first have bytes.
func (t *transfer) check(have int64) (decided bool, err error) {
	if have == 0 {
		return false, nil // also without Check: the first answer has the size
	}
	return checkBeginning(t.src, t.dst.File, have, t.state.Size)
}

// fetchRest fetches the missing chunks over several connections.
func (t *transfer) fetchRest(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	connections := cmp.Or(t.c.Connections, DefaultConnections)
	perRequest := min(chunksPerReq, max(1, t.state.missing()/connections))
	var wg sync.WaitGroup
	for range connections {
		wg.Go(func() {
			for {
				first, last := t.claim(perRequest)
				if first == last {
					return
				}
				if err := t.fetchChunks(ctx, first, last); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// claim returns the next at most n missing chunks in a row that no connection has:
// those from first to before last.
func (t *transfer) claim(n int) (first, last int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	count := t.state.chunks()
	first = t.next
	for first < count && t.state.has(first) {
		first++
	}
	last = first
	for last < count && last-first < n && !t.state.has(last) {
		last++
	}
	t.next = last
	return first, last
}

// fetchChunks fetches the chunks from first to before last, and continues after cuts
// at the byte that is missing.
func (t *transfer) fetchChunks(ctx context.Context, first, last int) error {
	at := int64(first) * t.state.Chunk
	return t.c.retry(ctx, func() (progress bool, err error) {
		end := int64(last) * t.state.Chunk
		if t.prepared {
			end = min(end, t.state.Size)
		}
		t.mu.Lock()
		id := t.state.identity
		t.mu.Unlock()
		// A file that comes as a whole comes from one version of it.
		res, stop, whole, err := t.c.openRange(ctx, t.src.URL, at, end-at, &id, t.src.SHA256 != "" || t.whole)
		if err != nil {
			return false, err
		}
		defer stop()
		defer func() { _ = res.Body.Close() }()
		if err := t.prepare(id); err != nil {
			return false, err
		}
		if whole {
			t.whole, end = true, id.Size
			t.restartCount()
		}
		start := at
		at, err = t.write(ctx, res.Body, at, min(end, id.Size))
		if whole && err != nil {
			at = 0
			return false, err
		}
		return at > start, err
	})
}

// prepare makes the file as long as it will be, when the first answer has come.
func (t *transfer) prepare(id identity) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.prepared {
		return nil
	}
	if err := checkSpace(t.dst.File, id.Size); err != nil {
		return err
	}
	if err := t.dst.File.Truncate(id.Size); err != nil {
		return err
	}
	t.state.begin(id)
	t.prepared = true
	return nil
}

// write copies the bytes from at to end, and returns how far it came.
func (t *transfer) write(ctx context.Context, body io.Reader, at, end int64) (int64, error) {
	buf := make([]byte, bufferSize)
	for at < end {
		n, err := body.Read(buf[:min(int64(len(buf)), end-at)])
		if n > 0 {
			if _, err := t.dst.File.WriteAt(buf[:n], at); err != nil {
				return at, err
			}
			if err := t.came(ctx, at, at+int64(n)); err != nil {
				return at, err
			}
			at += int64(n)
		}
		if err != nil && at < end {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return at, err
		}
	}
	return at, nil
}

// came notes that the bytes from at to end are in the file. Those of a chunk come in
// order, so one whose last byte came is whole.
func (t *transfer) came(ctx context.Context, at, end int64) error {
	t.mu.Lock()
	t.count += end - at
	save := false
	for i := at / t.state.Chunk; i*t.state.Chunk < end; i++ {
		if last := min((i+1)*t.state.Chunk, t.state.Size); end >= last {
			t.state.mark(int(i))
			t.marked++
		}
	}
	if t.marked >= chunksPerSave {
		t.marked, save = 0, true
	}
	prefix := t.state.prefix()
	t.mu.Unlock()
	if !t.whole || prefix == t.state.Size { // a second attempt overwrites the first
		t.hash.advance(prefix)
	}
	if t.whole && prefix > t.checked {
		t.checked = prefix
		if _, err := t.check(prefix); err != nil {
			return &checkError{err}
		}
	}
	t.show(false)
	if save {
		fsync.StartWriteback(t.dst.File)
		return errors.Join(t.save(), ctx.Err())
	}
	return nil
}

// restartCount forgets what came: the server sends the file from its beginning.
func (t *transfer) restartCount() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state.clear()
	t.count = 0
}

func (t *transfer) show(now bool) {
	if t.dst.Progress == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if now || time.Since(t.shown) >= progressPeriod {
		t.shown = time.Now()
		t.dst.Progress(t.count, t.state.Size)
	}
}
