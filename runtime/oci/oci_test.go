package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/testing/fakeregistry"
	"forge.lthn.ai/core/go-rocm/testing/netcut"
)

// TestMain keeps the logins of the user who runs the tests out of them.
func TestMain(m *testing.M) {
	if err := os.Setenv(EnvDockerConfig, "no-such-directory"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func client() *download.Client {
	return &download.Client{Attempts: 1, Sleep: func(context.Context, time.Duration) error { return nil }}
}

func resolve(t *testing.T, c *download.Client, name string) (*Artifact, error) {
	t.Helper()
	ref, err := modelref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(t.Context(), c, ref, DockerLogin)
	if err != nil {
		return nil, err
	}
	return r.Resolve()
}

// Media types that tests use.
const (
	dockerModel, ollamaModel = "application/vnd.docker.ai.gguf.v3", "application/vnd.ollama.image.model"
	ollamaProjector          = "application/vnd.ollama.image.projector"
)

// The artifacts of three worlds, with splits and projectors.
func TestResolveArtifacts(t *testing.T) {
	r := fakeregistry.Start(t)
	model, second := r.AddBlob(dockerModel, []byte("first")), r.AddBlob(dockerModel, []byte("second"))
	license := r.AddBlob("application/vnd.docker.ai.license", []byte("text"))
	ollama, projector := r.AddBlob(ollamaModel, []byte("ollama")), r.AddBlob(ollamaProjector, []byte("sees"))
	weights, readme, eyes := r.AddBlob(cncfWeights, []byte("cncf")), r.AddBlob(cncfWeights, []byte("readme")), r.AddBlob(cncfWeights, []byte("eyes"))
	weights.Annotations = map[string]string{"org.cncf.model.filepath": "d/tiny-Q4_0.gguf"}
	readme.Annotations = map[string]string{"org.cncf.model.filepath": "README.md"}
	eyes.Annotations = map[string]string{"org.opencontainers.image.title": "mmproj-F16.gguf"}
	evil := model
	evil.Annotations = map[string]string{"org.opencontainers.image.title": "../.."}
	digest := r.AddManifest("ai/one", "1.0", license, model)
	r.AddManifest("ai/split", "latest", model, second)
	r.AddManifest("library/see", "q4", ollama, projector)
	r.AddManifest("cncf/tiny", "v1", eyes, readme, weights)
	r.AddManifest("evil", "v1", evil)
	for name, want := range map[string][]string{
		"ai/one:1.0":       {"model.gguf 5 false"},
		"ai/one@" + digest: {"model.gguf 5 false"},
		"ai/split":         {"model-00001-of-00002.gguf 5 false", "model-00002-of-00002.gguf 6 false"},
		"library/see:q4":   {"model.gguf 6 false", "mmproj.gguf 4 true"},
		"cncf/tiny:v1":     {"tiny-Q4_0.gguf 4 false", "mmproj.gguf 4 true"},
		"evil:v1":          {"model.gguf 5 false"},
	} {
		a, err := resolve(t, client(), "oci:"+r.Host+"/"+name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, l := range a.Layers {
			got = append(got, fmt.Sprintf("%s %d %v", l.Name, l.Size, l.Kind == KindProjector))
			if repo, _, _ := strings.Cut(strings.ReplaceAll(name, "@", ":"), ":"); l.URL != "http://"+r.Host+"/v2/"+repo+"/blobs/sha256:"+l.SHA256 {
				t.Errorf("%s: %s", name, l.URL)
			}
		}
		if d := cmp.Diff(want, got); d != "" || !strings.HasPrefix(a.Digest, "sha256:") {
			t.Errorf("%s: %s\n%s", name, a.Digest, d)
		}
	}
}

// A connection may break after any byte of a challenge, a token, a manifest or a blob.
func TestPullSurvivesACutAnywhere(t *testing.T) {
	r := fakeregistry.Start(t)
	r.AddManifest("a", "b", r.AddBlob(dockerModel, []byte("a small model")))
	var cut netcut.Cutter
	c := client()
	c.Attempts, c.Transport = 2, cut.Transport()
	ref, err := modelref.Parse("oci:" + r.Host + "/a:b")
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		cut.After(n)
		registry, err := Open(t.Context(), c, ref, nil)
		if err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		artifact, err := registry.Resolve()
		if err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		if raw, _, err := registry.Client.Get(t.Context(), artifact.Layers[0].URL, 100); err != nil || string(raw) != "a small model" {
			t.Fatalf("after %d bytes: %q, %v", n, raw, err)
		}
		if !cut.Done() {
			if n < 800 {
				t.Errorf("everything came in %d bytes", n)
			}
			return
		}
	}
}

func TestResolveErrors(t *testing.T) {
	r := fakeregistry.Start(t)
	model := r.AddBlob(dockerModel, []byte("first"))
	forged, sha512, text := model, model, r.AddBlob("text/plain", []byte("x"))
	forged.Size = -1
	sha512.Digest = "sha512:" + strings.Repeat("ab", 64)
	r.AddManifest("forged", "v1", forged)
	r.AddManifest("sha512", "v1", sha512)
	r.AddManifest("text", "v1", text)
	digest := r.AddManifest("other", "v1", model)
	r.AddManifest("swapped", strings.Replace(digest, digest[7:9], "00", 1), model)
	for name, want := range map[string]error{
		"forged:v1": ErrManifest, "sha512:v1": ErrManifest, "text:v1": ErrNotModel, "none:v1": ErrAccess,
		"swapped@" + strings.Replace(digest, digest[7:9], "00", 1): download.ErrDigest,
	} {
		if a, err := resolve(t, client(), "oci:"+r.Host+"/"+name); !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v; want %v", name, a, err, want)
		}
	}
	// The token service wants a login, which is sent to it alone.
	r.Login = "Basic me"
	if _, err := resolve(t, client(), "oci:"+r.Host+"/other:v1"); !errors.Is(err, ErrAccess) || !strings.Contains(err.Error(), ".netrc") {
		t.Errorf("without a login: %v", err)
	}
	c := client()
	c.Credentials = func(u *url.URL) string {
		if u.Path == "/token" {
			return r.Login
		}
		return ""
	}
	if _, err := resolve(t, c, "oci:"+r.Host+"/other:v1"); err != nil {
		t.Errorf("with a login: %v", err)
	}
	// A server that is no registry, and one whose token service is not encrypted.
	for _, header := range []string{"", `Bearer realm="ftp://x/"`, `Bearer realm=""`, `Bearer service="x"`, `Bearer realm="http://u:p@x/"`} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if header == "" {
				http.NotFound(w, nil)
				return
			}
			w.Header().Set("WWW-Authenticate", header)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		if _, err := resolve(t, client(), "oci:"+strings.TrimPrefix(s.URL, "http://")+"/a:b"); err == nil {
			t.Errorf("%q: no error", header)
		}
		s.Close()
	}
}

// A token is replaced before it expires, so that a long download goes on.
func TestTokenIsRenewed(t *testing.T) {
	r := fakeregistry.Start(t)
	ref, err := modelref.Parse("oci:" + r.Host + "/a:b")
	if err != nil {
		t.Fatal(err)
	}
	registry, err := Open(t.Context(), client(), ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	u := registry.base.JoinPath("v2", "a")
	if got := registry.credentials(u); got != "Bearer token for repository:a:pull" || r.Tokens.Load() != 1 {
		t.Errorf("%q, %d tokens", got, r.Tokens.Load())
	}
	registry.expires = time.Now().Add(-time.Second)
	if got := registry.credentials(u); got == "" || r.Tokens.Load() != 2 {
		t.Errorf("%q, %d tokens", got, r.Tokens.Load())
	}
	if got := registry.credentials(&url.URL{Scheme: "https", Host: "cdn.test"}); got != "" {
		t.Errorf("for another host: %q", got)
	}
}

// The files of a manifest that is accepted have safe names and true digests.
func FuzzManifest(f *testing.F) {
	for _, s := range []string{
		"", "{}", `{"layers":[{"mediaType":"` + dockerModel + `","digest":"sha256:` + strings.Repeat("ab", 32) + `","size":3,"annotations":{"org.cncf.model.filepath":"../x.gguf"}}]}`,
		`{"layers":[{"mediaType":"` + ollamaProjector + `"}]}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		layers, err := parseManifest([]byte(s))
		if err != nil {
			return
		}
		names := map[string]bool{}
		for _, l := range layers {
			if !modelref.ValidFile(l.Name) || strings.Contains(l.Name, "/") || names[l.Name] || !modelref.ValidSHA256(l.SHA256) || l.Size <= 0 {
				t.Errorf("%+v", l)
			}
			names[l.Name] = true
		}
	})
}

// Whatever a challenge says, a login is sent to an encrypted service, or on this
// machine.
func FuzzChallenge(f *testing.F) {
	for _, s := range []string{"", "Basic", `Bearer realm="https://auth.test/token",service="x",scope="y"`, `bearer realm=http://x`, `Bearer realm="//x"`} {
		f.Add(s)
	}
	r := &Registry{base: &url.URL{Scheme: "https", Host: "r.test"}, ref: modelref.Ref{Name: "a"}}
	f.Fuzz(func(t *testing.T, s string) {
		if u, err := r.parseChallenge(s); err == nil && u != nil && (u.Scheme != "https" || u.Host == "" || !strings.Contains(u.RawQuery, "scope=repository%3Aa%3Apull")) {
			t.Errorf("%q: %s", s, u)
		}
	})
}
