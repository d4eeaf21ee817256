package download

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"sync"
)

// prefixHash computes the digest of a file behind the bytes that come, while they
// are still in memory.
type prefixHash struct {
	r    io.ReaderAt
	hash hash.Hash

	mu      sync.Mutex
	changed *sync.Cond
	have    int64 // bytes from the beginning that are in the file
	read    int64 // bytes that are hashed
	stopped bool
	err     error
	done    chan struct{}
}

func newPrefixHash(r io.ReaderAt) *prefixHash {
	p := &prefixHash{r: r, hash: sha256.New(), done: make(chan struct{})}
	p.changed = sync.NewCond(&p.mu)
	go p.run()
	return p
}

func (p *prefixHash) run() {
	defer close(p.done)
	buf := make([]byte, 1<<20)
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for p.read == p.have && !p.stopped {
			p.changed.Wait()
		}
		if p.stopped {
			return
		}
		n := min(int64(len(buf)), p.have-p.read)
		p.mu.Unlock()
		_, err := p.r.ReadAt(buf[:n], p.read)
		if err == nil || err == io.EOF {
			err = nil
			_, _ = p.hash.Write(buf[:n]) // a hash returns no error
		}
		p.mu.Lock()
		p.read += n
		if p.err = err; err != nil {
			p.stopped = true
		}
		p.changed.Broadcast()
	}
}

// advance says that the first n bytes are in the file.
func (p *prefixHash) advance(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have = max(p.have, n)
	p.changed.Broadcast()
}

// sum waits until the first n bytes are hashed and returns their digest.
func (p *prefixHash) sum(ctx context.Context, n int64) ([]byte, error) {
	defer context.AfterFunc(ctx, p.stop)()
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.read < n && !p.stopped {
		p.changed.Wait()
	}
	if p.read < n {
		if p.err == nil {
			p.err = context.Cause(ctx)
		}
		return nil, p.err
	}
	return p.hash.Sum(nil), p.err
}

// stop ends the computation and waits for its end.
func (p *prefixHash) stop() {
	p.mu.Lock()
	p.stopped = true
	p.changed.Broadcast()
	p.mu.Unlock()
	<-p.done
}
