//go:build linux

package pull_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

// secret is the signature of an address.
const secret = "5ec7e7"

// signedModel serves a model to requests with a signature. The first of them is
// answered 503. It returns the address without a query, and the file's digest.
func signedModel(t *testing.T) (address, digest string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	model(t, path, "signed")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	busy := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !strings.HasPrefix(r.URL.Query().Get("X-Amz-Signature"), secret):
			http.Error(w, "the request has no signature", http.StatusForbidden)
		case busy:
			busy = false
			http.Error(w, "busy", http.StatusServiceUnavailable)
		default:
			http.ServeFile(w, r, path)
		}
	}))
	t.Cleanup(srv.Close)
	sum := sha256.Sum256(raw)
	return srv.URL + "/a/m.gguf", hex.EncodeToString(sum[:])
}

// urlPuller returns a puller for web servers, and its log.
func urlPuller() (*pull.Puller, *bytes.Buffer) {
	log := new(bytes.Buffer)
	return &pull.Puller{Client: &download.Client{
		ChunkSize: 4096, Attempts: 2, Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}}, log
}

// The query of an address is used for the download, and is in no name, file or message
// afterwards.
func TestQueryIsNotStored(t *testing.T) {
	for _, verified := range []bool{true, false} {
		address, digest := signedModel(t)
		name := address
		if verified {
			name += "#sha256=" + digest
		}
		whole := strings.Replace(name, "m.gguf", "m.gguf?X-Amz-Signature="+secret, 1)
		p, log := urlPuller()
		dir := t.TempDir()
		s := newStore(t, dir)
		r, err := pullRef(t, p, s, whole)
		if err != nil {
			t.Fatal(err)
		}
		if r.Name != name || r.Files[0].URL != address || r.Files[0].Name != "m.gguf" || r.Files[0].SHA256 != digest || r.Verified() != verified {
			t.Errorf("%+v", r)
		}
		ref, err := modelref.Parse(whole)
		if err != nil {
			t.Fatal(err)
		}
		if found, err := s.Lookup(ref); err != nil || found.Name != name {
			t.Errorf("looked up by its whole address: %+v, %v", found, err)
		}
		if !strings.Contains(log.String(), "503") || strings.Contains(log.String(), secret) {
			t.Errorf("log: %s", log)
		}
		l, err := pull.NewLock([]modelstore.Record{*r})
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := l.Bytes(); err != nil || strings.Contains(string(raw), secret) {
			t.Errorf("lock: %s, %v", raw, err)
		}
		noneHas(t, dir, secret)

		// The lock alone cannot bring the file, and says what can.
		other := newStore(t, t.TempDir())
		err = p.PullLocked(t.Context(), other, l, "")
		if err == nil || !strings.Contains(err.Error(), "go-rocm pull '"+address+"?QUERY#sha256="+digest+"'") || strings.Contains(err.Error(), secret) {
			t.Errorf("locked: %v", err)
		}
		if _, err := pullRef(t, p, other, address+"?X-Amz-Signature="+secret+"2#sha256="+digest); err != nil {
			t.Fatal(err)
		}
		if err := p.PullLocked(t.Context(), other, l, ""); err != nil {
			t.Errorf("locked, with the file in the store: %v", err)
		}
	}
}

// noneHas reports files whose name or content has a text.
func noneHas(t *testing.T, dir, text string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.Contains(d.Name(), text) {
			t.Errorf("%s", path)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte(text)) {
			t.Errorf("%s: %s", path, raw)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A download that was cut leaves no query behind, and is continued by an address with
// another signature.
func TestQueryIsInNoState(t *testing.T) {
	address, digest := signedModel(t)
	p, _ := urlPuller()
	dir := t.TempDir()
	s := newStore(t, dir)
	sent := 0
	p.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		res, err := http.DefaultTransport.RoundTrip(req)
		if err == nil && res.StatusCode == http.StatusPartialContent {
			if sent++; sent > 1 {
				res.StatusCode = http.StatusForbidden // the signature has ended
			}
			res.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(res.Body, 9000), res.Body}
		}
		return res, err
	})
	if _, err := pullRef(t, p, s, address+"?X-Amz-Signature="+secret+"#sha256="+digest); err == nil || strings.Contains(err.Error(), secret) {
		t.Fatalf("a signature that ends: %v", err)
	}
	noneHas(t, dir, secret)
	first := sent
	p.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		if strings.HasPrefix(req.Header.Get("Range"), "bytes=0-") {
			t.Errorf("the beginning is fetched again: %s", req.Header.Get("Range"))
		}
		return http.DefaultTransport.RoundTrip(req)
	})
	if _, err := pullRef(t, p, s, address+"?X-Amz-Signature="+secret+"2#sha256="+digest); err != nil || first < 2 {
		t.Errorf("continued after %d requests: %v", first, err)
	}
}

// roundTripper is a function that implements http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
