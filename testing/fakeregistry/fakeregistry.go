// Package fakeregistry is a local registry of containers with artifacts of models, for
// tests. It wants a token for each request, issues it for a login, and redirects
// blobs to another host, as the large registries do.
package fakeregistry

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Layer is a layer of an artifact.
type Layer struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Registry is a running registry.
type Registry struct {
	Host string // with its port
	// Login is the Authorization header that the token service wants; empty: it
	// issues tokens to everybody.
	Login string
	// Tokens counts the tokens that were issued.
	Tokens atomic.Int64

	mu        sync.Mutex
	blobs     map[string][]byte
	manifests map[string][]byte
	cdn       string
}

// Start starts a registry, which ends with the test.
func Start(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{blobs: map[string][]byte{}, manifests: map[string][]byte{}}
	cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") != "" {
			http.Error(w, "a token of another host", http.StatusForbidden)
			return
		}
		r.mu.Lock()
		content, ok := r.blobs[strings.TrimPrefix(req.URL.Path, "/")]
		r.mu.Unlock()
		if !ok {
			http.NotFound(w, req)
			return
		}
		http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(cdn.Close)
	r.cdn = cdn.URL
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.Host = strings.TrimPrefix(s.URL, "http://")
	return r
}

// AddBlob stores a blob and returns its layer.
func (r *Registry) AddBlob(mediaType string, content []byte) Layer {
	sum := sha256.Sum256(content)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[digest] = content
	return Layer{MediaType: mediaType, Digest: digest, Size: int64(len(content))}
}

// AddManifest stores the manifest of the layers as NAME:TAG, and returns its digest.
func (r *Registry) AddManifest(name, tag string, layers ...Layer) string {
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": Layer{MediaType: "application/vnd.docker.ai.model.config.v0.1+json", Digest: "sha256:0", Size: 2}, "layers": layers,
	})
	if err != nil {
		panic(err) // strings and numbers
	}
	sum := sha256.Sum256(raw)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests[name+"/manifests/"+tag], r.manifests[name+"/manifests/"+digest] = raw, raw
	return digest
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == "/token" {
		r.serveToken(w, req)
		return
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/")
	if !ok {
		http.NotFound(w, req)
		return
	}
	name, _, _ := strings.Cut(strings.ReplaceAll(rest, "/blobs/", "/manifests/"), "/manifests/")
	if rest == "" || req.Header.Get("Authorization") != "Bearer token for repository:"+name+":pull" {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="fake"`, r.Host))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.mu.Lock()
	raw, isManifest := r.manifests[rest]
	r.mu.Unlock()
	_, digest, isBlob := strings.Cut(rest, "/blobs/")
	switch {
	case isManifest && strings.Contains(req.Header.Get("Accept"), "application/vnd.oci.image.manifest.v1+json"):
		_, _ = w.Write(raw)
	case isBlob:
		http.Redirect(w, req, r.cdn+"/"+digest, http.StatusTemporaryRedirect)
	default:
		http.NotFound(w, req)
	}
}

func (r *Registry) serveToken(w http.ResponseWriter, req *http.Request) {
	if req.Header.Get("Authorization") != r.Login || req.URL.Query().Get("service") != "fake" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	r.Tokens.Add(1)
	_ = json.NewEncoder(w).Encode(map[string]any{"token": "token for " + req.URL.Query().Get("scope"), "expires_in": 300})
}
