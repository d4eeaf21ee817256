// Package fakehub is a local server with the API of a Hugging Face hub, for tests.
//
// A repository OWNER/REPO is the directory OWNER/REPO below the hub's directory. Like
// the real one, the hub answers with 401 about repositories that do not exist, pages
// its listings, names the SHA-256 of files, and redirects downloads to another host
// with a signature in the query.
package fakehub

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Commit is the commit of every repository.
const Commit = "0123456789abcdef0123456789abcdef01234567"

// unhashed is the size in bytes from which on a file is not read for its digest:
// models without weights are sparse files of many GiB.
const unhashed = 64 << 20

// Hub is a running hub.
type Hub struct {
	URL string // the endpoint
	Dir string // of the repositories
	// Token is what a gated repository, one with a file GATED, wants to see.
	Token string
	// Blobs serves the files in place of the hub; nil: http.ServeContent does.
	Blobs func(w http.ResponseWriter, r *http.Request, path string)

	cdn    string
	blobs  atomic.Int64 // requests for files
	served atomic.Int64 // bytes of files
	mu     sync.Mutex
	sums   map[string]string
}

// Start starts a hub with a new directory, which ends with the test.
func Start(t testing.TB) *Hub {
	t.Helper()
	h, stop := New(t.TempDir())
	t.Cleanup(stop)
	return h
}

// New starts a hub with the repositories in dir.
func New(dir string) (h *Hub, stop func()) {
	h = &Hub{Dir: dir, sums: map[string]string{}}
	cdn := httptest.NewServer(http.HandlerFunc(h.serveBlob))
	h.cdn = cdn.URL
	api, files := http.NewServeMux(), http.NewServeMux()
	api.HandleFunc("GET /api/models/{owner}/{repo}/revision/{revision}", h.serveInfo)
	api.HandleFunc("GET /api/models/{owner}/{repo}/tree/"+Commit, h.serveTree)
	files.HandleFunc("GET /{owner}/{repo}/resolve/"+Commit+"/{path...}", h.serveResolve)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") { // the patterns of both overlap
			api.ServeHTTP(w, r)
			return
		}
		files.ServeHTTP(w, r)
	}))
	h.URL = s.URL
	return h, func() { s.Close(); cdn.Close() }
}

// Requests returns the number of requests for files.
func (h *Hub) Requests() int64 { return h.blobs.Load() }

// Served returns the number of bytes of files that were sent.
func (h *Hub) Served() int64 { return h.served.Load() }

// repo returns the directory of the request's repository, or answers with an error.
func (h *Hub) repo(w http.ResponseWriter, r *http.Request) (dir string, ok bool) {
	fail := func(status int, code string) (string, bool) {
		w.Header().Set("X-Error-Code", code)
		http.Error(w, code, status)
		return "", false
	}
	if _, err := os.Stat(h.Dir); err != nil {
		return fail(http.StatusInternalServerError, "NoDirectory")
	}
	dir = filepath.Join(h.Dir, r.PathValue("owner"), r.PathValue("repo"))
	if _, err := os.Stat(dir); err != nil {
		return fail(http.StatusUnauthorized, "RepoNotFound")
	}
	if _, err := os.Stat(filepath.Join(dir, "GATED")); err == nil && r.Header.Get("Authorization") != "Bearer "+h.Token {
		return fail(http.StatusForbidden, "GatedRepo")
	}
	if revision := r.PathValue("revision"); revision != "" && revision != "main" && revision != Commit {
		return fail(http.StatusNotFound, "RevisionNotFound")
	}
	return dir, true
}

func (h *Hub) serveInfo(w http.ResponseWriter, r *http.Request) {
	if _, ok := h.repo(w, r); ok {
		_ = json.NewEncoder(w).Encode(map[string]any{"sha": Commit, "cardData": map[string]any{"license": "apache-2.0"}})
	}
}

func (h *Hub) serveTree(w http.ResponseWriter, r *http.Request) {
	dir, ok := h.repo(w, r)
	if !ok {
		return
	}
	const page = 3
	entries := []map[string]any{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			entries = append(entries, map[string]any{"type": "directory", "path": name, "size": 0})
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum, err := h.sum(path, info.Size())
		entries = append(entries, map[string]any{
			"type": "file", "path": name, "size": info.Size(), "oid": "0",
			"lfs": map[string]any{"oid": sum, "size": info.Size(), "pointerSize": 134},
		})
		return err
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	at, _ := strconv.Atoi(r.URL.Query().Get("cursor")) // an absent cursor is 0
	end := min(at+page, len(entries))
	if end < len(entries) {
		w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, end))
	}
	_ = json.NewEncoder(w).Encode(entries[at:end])
}

// sum returns the digest of a file.
func (h *Hub) sum(path string, size int64) (string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if known, ok := h.sums[path]; ok {
		return known, nil
	}
	digest := sha256.New()
	if size >= unhashed {
		_, _ = io.WriteString(digest, path)
	} else {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer func() { _ = f.Close() }()
		if _, err := io.Copy(digest, f); err != nil {
			return "", err
		}
	}
	sum := hex.EncodeToString(digest.Sum(nil))
	h.sums[path] = sum
	return sum, nil
}

func (h *Hub) serveResolve(w http.ResponseWriter, r *http.Request) {
	dir, ok := h.repo(w, r)
	if !ok {
		return
	}
	path := filepath.Join(dir, filepath.FromSlash(r.PathValue("path")))
	if _, err := os.Stat(path); err != nil {
		w.Header().Set("X-Error-Code", "EntryNotFound")
		http.NotFound(w, r)
		return
	}
	http.Redirect(w, r, h.cdn+strings.TrimPrefix(path, h.Dir)+"?signature=secret", http.StatusFound)
}

func (h *Hub) serveBlob(w http.ResponseWriter, r *http.Request) {
	h.blobs.Add(1)
	if r.Header.Get("Authorization") != "" || r.URL.Query().Get("signature") != "secret" {
		http.Error(w, "the request has a login, or no signature", http.StatusForbidden)
		return
	}
	path := filepath.Join(h.Dir, filepath.FromSlash(filepath.Clean(r.URL.Path)))
	counting := &counter{w, &h.served}
	if h.Blobs != nil {
		h.Blobs(counting, r, path)
		return
	}
	f, err := os.Open(path)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", fmt.Sprintf("\"%x\"", sha256.Sum256([]byte(path))))
	http.ServeContent(counting, r, path, info.ModTime(), f)
}

// counter counts the bytes of bodies.
type counter struct {
	http.ResponseWriter
	served *atomic.Int64
}

// Write implements io.Writer.
func (c *counter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.served.Add(int64(n))
	return n, err
}

// Unwrap returns the writer below, for http.ResponseController.
func (c *counter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
