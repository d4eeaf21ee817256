package download_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/netcut"
)

// content returns n bytes that differ between seeds.
func content(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// honest serves the content as net/http does, with a strong tag.
func honest(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+digest(b)[:16]+`"`)
		http.ServeContent(w, r, "m.gguf", time.Time{}, bytes.NewReader(b))
	}
}

func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL + "/m.gguf"
}

// client returns a client with small chunks that does not wait between attempts.
func client() *download.Client {
	return &download.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, ChunkSize: 64, Connections: 3, Attempts: 4,
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
}

func target(t *testing.T) download.Target {
	t.Helper()
	return targetIn(t, t.TempDir())
}

func targetIn(t *testing.T, dir string) download.Target {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "partial"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return download.Target{File: f, StatePath: filepath.Join(dir, "partial.json")}
}

func source(url string, b []byte) download.Source {
	return download.Source{URL: url, Size: int64(len(b)), SHA256: digest(b)}
}

func unknown(url string) download.Source { return download.Source{URL: url, Size: -1} }

func checkFile(t *testing.T, dst download.Target, want []byte) {
	t.Helper()
	got, err := os.ReadFile(dst.File.Name())
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has %d bytes (%v), which differ from the %d of the server", len(got), err, len(want))
	}
}

func TestFetchSizes(t *testing.T) {
	for _, n := range []int{1, 63, 64, 65, 128, 1000, 64*40 + 7} {
		b := content(n, 1)
		url := serve(t, honest(b))
		for name, src := range map[string]download.Source{"known": source(url, b), "unknown": unknown(url)} {
			dst := target(t)
			var last int64
			dst.Progress = func(done, total int64) {
				if done < last || done > total || total != int64(n) {
					t.Errorf("%d %s: %d of %d after %d", n, name, done, total, last)
				}
				last = done
			}
			got, err := client().Fetch(t.Context(), src, dst)
			if err != nil || got != (download.Result{Size: int64(n), SHA256: digest(b)}) || last != int64(n) {
				t.Errorf("%d %s: %+v, %v, %d", n, name, got, err, last)
			}
			checkFile(t, dst, b)
		}
	}
}

// cutting serves ranges, and closes the connection after limit bytes of a body.
func cutting(b []byte, limit int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		honest(b)(&cutter{ResponseWriter: w, left: limit}, r)
	}
}

type cutter struct {
	http.ResponseWriter
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, _ := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; n < len(p) {
		if f, ok := c.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		panic(http.ErrAbortHandler)
	}
	return n, nil
}

// A connection that breaks after any byte costs nothing but a request.
func TestFetchContinuesAfterCutsAtEveryByte(t *testing.T) {
	b := content(200, 2)
	for limit := 1; limit <= 64; limit++ {
		url := serve(t, cutting(b, limit))
		dst := target(t)
		if got, err := client().Fetch(t.Context(), unknown(url), dst); err != nil || got.SHA256 != digest(b) {
			t.Fatalf("after %d bytes: %+v, %v", limit, got, err)
		}
		checkFile(t, dst, b)
	}
	_, err := client().Fetch(t.Context(), unknown(serve(t, cutting(b, 0))), target(t))
	if err == nil {
		t.Error("a server that never sends a byte")
	}
}

// A connection may break after any byte that a server sends, in headers too, whether
// the server knows ranges or not: the file is whole afterwards.
func TestFetchSurvivesACutAnywhere(t *testing.T) {
	b := content(100, 12)
	for name, h := range map[string]http.HandlerFunc{
		"ranges": honest(b),
		"no ranges": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(b)))
			_, _ = w.Write(b)
		},
	} {
		url := serve(t, h)
		var cut netcut.Cutter
		c := client()
		c.Transport = cut.Transport()
		n, step := 0, cases.Of(7, 3, 1) // bytes between two cuts
		for ; ; n += step {
			cut.After(n)
			dst := targetIn(t, t.TempDir())
			if got, err := c.Fetch(t.Context(), unknown(url), dst); err != nil || got.SHA256 != digest(b) {
				t.Fatalf("%s, after %d bytes: %+v, %v", name, n, got, err)
			}
			checkFile(t, dst, b)
			if !cut.Done() {
				break
			}
		}
		if n < len(b)+100 {
			t.Errorf("%s: the file came in %d bytes", name, n)
		}
		n = 0
		for ; ; n += 5 { // the same transport as above
			cut.After(n)
			dst := targetIn(t, t.TempDir())
			if size, err := c.FetchHeader(t.Context(), unknown(url), dst.File); err != nil || size != int64(len(b)) {
				t.Fatalf("%s, a header after %d bytes: %d, %v", name, n, size, err)
			}
			checkFile(t, dst, b)
			if !cut.Done() {
				break
			}
		}
	}
}

// What came is not fetched again by the next process, in whatever order it came.
func TestFetchContinuesInAnotherProcess(t *testing.T) {
	b := content(64*64, 3)
	dir := t.TempDir()
	var served atomic.Int64
	var budget atomic.Int64
	counting := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if budget.Load() <= 0 {
			http.Error(w, "down", http.StatusNotFound)
			return
		}
		honest(b)(&countingWriter{w, &served, &budget}, r)
	})
	url := serve(t, counting)
	for i := 1; ; i++ {
		if i > 30 {
			t.Fatal("it does not come to an end")
		}
		budget.Store(640)
		got, err := client().Fetch(t.Context(), source(url, b), targetIn(t, dir))
		if err == nil {
			if got.SHA256 != digest(b) {
				t.Errorf("%+v", got)
			}
			break
		}
		var status *download.StatusError
		if !errors.As(err, &status) || status.Code != http.StatusNotFound {
			t.Fatal(err)
		}
	}
	checkFile(t, targetIn(t, dir), b)
	// In each round, at most a chunk of each connection was lost.
	if n := served.Load(); n > int64(len(b))*2 {
		t.Errorf("%d bytes were sent for a file of %d", n, len(b))
	}
}

type countingWriter struct {
	http.ResponseWriter
	served, budget *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	for i := range p {
		if c.budget.Add(-1) < 0 {
			_ = http.NewResponseController(c.ResponseWriter).Flush()
			panic(http.ErrAbortHandler)
		}
		if _, err := c.ResponseWriter.Write(p[i : i+1]); err != nil {
			return i, err
		}
		c.served.Add(1)
	}
	return len(p), nil
}

// A partial file with damage, of a power failure, is fetched again from its beginning.
func TestFetchStartsAgainAfterDamage(t *testing.T) {
	b := content(64*20, 4)
	dir := t.TempDir()
	var budget, served atomic.Int64
	budget.Store(900)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		honest(b)(&countingWriter{w, &served, &budget}, r)
	}))
	if _, err := client().Fetch(t.Context(), source(url, b), targetIn(t, dir)); err == nil {
		t.Fatal("the first part did not end")
	}
	dst := targetIn(t, dir)
	if _, err := dst.File.WriteAt([]byte{b[0] ^ 1}, 0); err != nil {
		t.Fatal(err)
	}
	budget.Store(1 << 20)
	if got, err := client().Fetch(t.Context(), source(url, b), dst); err != nil || got.SHA256 != digest(b) {
		t.Errorf("%+v, %v", got, err)
	}
	checkFile(t, dst, b)
	if err := os.WriteFile(dst.StatePath, []byte(`{"url":"x","size":-5,"chunk":0,"done":"////"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := client().Fetch(t.Context(), source(url, b), dst); err != nil || got.SHA256 != digest(b) {
		t.Errorf("with a damaged state: %+v, %v", got, err)
	}
}

// The file on the server is replaced while it is fetched: the result is the new one,
// never a mixture. One that is replaced all the time is an error.
func TestFetchOfAChangingFile(t *testing.T) {
	one, two := content(1000, 7), content(1000, 8)
	for _, weak := range []bool{false, true} {
		var requests atomic.Int32
		h := func(limit int32) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				n, b := requests.Add(1), one
				if n > 3 && n <= limit && n%2 == 0 || n > limit {
					b = two
				}
				prefix := ""
				if weak {
					prefix = "W/"
				}
				if got := r.Header.Get("If-Range"); weak && got != "" || !weak && n == 2 && got != `"`+digest(one)[:8]+`"` {
					t.Errorf("weak %v: request %d has If-Range %q", weak, n, got)
				}
				w.Header().Set("ETag", prefix+`"`+digest(b)[:8]+`"`)
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			}
		}
		dst := target(t)
		got, err := client().Fetch(t.Context(), unknown(serve(t, h(3))), dst)
		if err != nil || got.SHA256 != digest(two) {
			t.Errorf("weak %v: %+v, %v", weak, got, err)
		}
		checkFile(t, dst, two)
		requests.Store(0)
		if _, err := client().Fetch(t.Context(), unknown(serve(t, h(1<<30))), target(t)); !errors.Is(err, download.ErrChanged) {
			t.Errorf("weak %v: %v", weak, err)
		}
	}
}

// A server without ranges sends the whole file, after a cut from the beginning.
func TestFetchWithoutRanges(t *testing.T) {
	b := content(1000, 9)
	var requests atomic.Int32
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(b)))
		w.Header().Set("ETag", `"tag"`)
		n := len(b)
		if requests.Add(1) == 1 {
			n = 700
		}
		_, _ = w.Write(b[:n])
	}))
	dst := target(t)
	if got, err := client().Fetch(t.Context(), unknown(url), dst); err != nil || got.SHA256 != digest(b) || requests.Load() != 2 {
		t.Errorf("%+v, %v, %d requests", got, err, requests.Load())
	}
	checkFile(t, dst, b)
}

// A storm of errors that pass is waited out; the server says for how long.
func TestFetchRepeats(t *testing.T) {
	b := content(300, 11)
	var requests atomic.Int32
	storm := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch requests.Add(1) % 3 {
		case 0:
			honest(b)(w, r)
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusTooManyRequests)
		}
	})
	var mu sync.Mutex
	var waits []time.Duration
	c := client()
	c.Connections = 1
	c.Sleep = func(_ context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		waits = append(waits, d)
		return nil
	}
	got, err := c.Fetch(t.Context(), source(serve(t, storm), b), target(t))
	if err != nil || got.SHA256 != digest(b) || len(waits) < 2 || waits[1] != 7*time.Second || waits[0] > time.Second {
		t.Errorf("%+v, %v, %v", got, err, waits)
	}
	for retryAfter, calls := range map[string]int32{"": 4, "301": 1, "4000000000": 4} {
		requests.Store(0)
		_, err := client().Fetch(t.Context(), source(serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			w.Header().Set("Retry-After", retryAfter)
			w.WriteHeader(http.StatusServiceUnavailable)
		})), b), target(t))
		var status *download.StatusError
		if !errors.As(err, &status) || status.Code != http.StatusServiceUnavailable || requests.Load() != calls {
			t.Errorf("Retry-After %q: %v, %d requests, want %d", retryAfter, err, requests.Load(), calls)
		}
	}
}
