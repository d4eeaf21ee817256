package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"golang.org/x/crypto/bcrypt"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/oci"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// TestMain turns the log of the distribution project's registry off.
func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// distribution returns the registry of the distribution project. With a login, it wants
// basic authentication.
func distribution(t *testing.T, login *auth.Credential) http.Handler {
	t.Helper()
	c := &configuration.Configuration{Storage: configuration.Storage{"inmemory": nil}}
	c.HTTP.Secret = "secret"
	if login != nil {
		hash, err := bcrypt.GenerateFromPassword([]byte(login.Password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "htpasswd")
		if err := os.WriteFile(file, []byte(login.Username+":"+string(hash)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Auth = configuration.Auth{"htpasswd": {"realm": "test", "path": file}}
	}
	app := handlers.NewApp(t.Context(), c)
	t.Cleanup(func() { _ = app.Shutdown() })
	return app
}

func serve(t *testing.T, h http.Handler) (host string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// model returns the bytes of a small GGUF model, or of one part of a split one.
func model(t *testing.T, name string, no, parts uint32) []byte {
	t.Helper()
	b := ggufgen.New("llama")
	b.Text("general.name", name)
	if parts > 1 {
		b.Uint("split.count", parts)
		b.Uint("split.no", no)
	}
	b.Tensor("tensor"+string(rune('a'+no)), gguf.F32, func(w io.Writer, size uint64) error {
		_, err := w.Write(bytes.Repeat([]byte{byte(no + 1)}, int(size)))
		return err
	}, 64, 64)
	return file(t, b)
}

func projector(t *testing.T) []byte {
	t.Helper()
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return file(t, b)
}

func file(t *testing.T, b *ggufgen.Builder) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := b.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// pusher pushes artifacts by oras-go.
type pusher struct {
	t     *testing.T
	host  string
	login *auth.Credential
}

func (p pusher) repository(name string) *remote.Repository {
	p.t.Helper()
	r, err := remote.NewRepository(p.host + "/" + name)
	if err != nil {
		p.t.Fatal(err)
	}
	r.PlainHTTP = true
	if p.login != nil {
		r.Client = &auth.Client{Credential: auth.StaticCredential(p.host, *p.login)}
	}
	return r
}

// blob pushes a blob, optionally with an annotation of its descriptor.
func (p pusher) blob(r *remote.Repository, mediaType string, content []byte, annotation ...string) v1.Descriptor {
	p.t.Helper()
	d, err := oras.PushBytes(p.t.Context(), r, mediaType, content)
	if err != nil {
		p.t.Fatal(err)
	}
	if len(annotation) > 0 {
		d.Annotations = map[string]string{annotation[0]: annotation[1]}
	}
	return d
}

// manifest packs and tags the manifest of layers, and returns its digest.
func (p pusher) manifest(r *remote.Repository, tag, artifactType, configType string, layers ...v1.Descriptor) string {
	p.t.Helper()
	config := p.blob(r, configType, []byte("{}"))
	d, err := oras.PackManifest(p.t.Context(), r, oras.PackManifestVersion1_1, artifactType, oras.PackManifestOptions{Layers: layers, ConfigDescriptor: &config})
	if err == nil {
		err = r.Tag(p.t.Context(), d, tag)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return string(d.Digest)
}

// dockerManifest pushes the manifest of layers in Docker's older format, which ollama
// uses.
func (p pusher) dockerManifest(r *remote.Repository, tag string, layers ...v1.Descriptor) {
	p.t.Helper()
	const mediaType = "application/vnd.docker.distribution.manifest.v2+json"
	config := p.blob(r, "application/vnd.docker.container.image.v1+json", []byte("{}"))
	raw, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaType, "config": config, "layers": layers})
	if err == nil {
		_, err = oras.TagBytes(p.t.Context(), r, mediaType, raw, tag)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func newPuller() *pull.Puller {
	c := &download.Client{ChunkSize: 1024, Attempts: 3, Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() }}
	return &pull.Puller{Client: c, RegistryLogin: oci.DockerLogin}
}

func newStore(t *testing.T) *modelstore.Store {
	t.Helper()
	s, err := modelstore.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func pullName(t *testing.T, s *modelstore.Store, name string) (*modelstore.Record, error) {
	t.Helper()
	ref, err := modelref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	p := newPuller()
	found, err := p.Find(t.Context(), ref)
	if err != nil {
		return nil, err
	}
	return p.Pull(t.Context(), s, found)
}

// check compares the files of a pulled model with those that were pushed.
func check(t *testing.T, s *modelstore.Store, name string, want map[string][]byte) *modelstore.Record {
	t.Helper()
	r, err := pullName(t, s, name)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return nil
	}
	if !r.Verified() || len(r.Files) != len(want) {
		t.Errorf("%s: %+v", name, r)
	}
	if err := s.Verify(t.Context(), r); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for _, f := range r.Files {
		if got, err := os.ReadFile(s.Path(r, f)); err != nil || want[f.Name] == nil || !bytes.Equal(got, want[f.Name]) {
			t.Errorf("%s: %s differs from what was pushed: %v", name, f.Name, err)
		}
	}
	return r
}

// Artifacts of three worlds come from two registries as they were pushed.
func TestPullFromRegistries(t *testing.T) {
	t.Setenv(oci.EnvDockerConfig, t.TempDir())
	for name, h := range map[string]http.Handler{
		"distribution": distribution(t, nil), "go-containerregistry": ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))),
	} {
		t.Run(name, func(t *testing.T) {
			p := pusher{t, serve(t, h), nil}
			one, eyes := model(t, "one", 0, 1), projector(t)
			parts := [][]byte{model(t, "split", 0, 2), model(t, "split", 1, 2)}
			const (
				docker, dockerConfig = "application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.model.config.v0.1+json"
				cncf                 = "application/vnd.cncf.model"
			)
			ai := p.repository("ai/one")
			digest := p.manifest(ai, "1B-F32", "", dockerConfig, p.blob(ai, docker, one), p.blob(ai, "application/vnd.docker.ai.license", []byte("text")), p.blob(ai, "application/vnd.docker.ai.mmproj", eyes))
			split := p.repository("ai/split")
			p.manifest(split, "latest", "", dockerConfig, p.blob(split, docker, parts[0]), p.blob(split, docker, parts[1]))
			library := p.repository("library/one")
			p.dockerManifest(library, "latest", p.blob(library, "application/vnd.ollama.image.model", one), p.blob(library, "application/vnd.ollama.image.template", []byte("{{ .Prompt }}")), p.blob(library, "application/vnd.ollama.image.projector", eyes))
			kit := p.repository("kit/one")
			p.manifest(kit, "v1", cncf+".manifest.v1+json", cncf+".config.v1+json",
				p.blob(kit, cncf+".weight.v1.raw", one, "org.cncf.model.filepath", "one-F32.gguf"), p.blob(kit, cncf+".doc.v1.raw", []byte("# one"), "org.cncf.model.filepath", "README.md"))
			text := p.repository("text")
			p.manifest(text, "latest", "application/vnd.example", dockerConfig, p.blob(text, "text/plain", []byte("no model")))

			s, prefix := newStore(t), "oci:"+p.host+"/"
			r := check(t, s, prefix+"ai/one:1B-F32", map[string][]byte{"model.gguf": one, "mmproj.gguf": eyes})
			if r != nil && r.Revision != digest {
				t.Errorf("the manifest is %s, pushed was %s", r.Revision, digest)
			}
			check(t, s, prefix+"ai/one@"+digest, map[string][]byte{"model.gguf": one, "mmproj.gguf": eyes})
			check(t, s, prefix+"ai/split", map[string][]byte{"model-00001-of-00002.gguf": parts[0], "model-00002-of-00002.gguf": parts[1]})
			check(t, s, prefix+"library/one", map[string][]byte{"model.gguf": one, "mmproj.gguf": eyes})
			check(t, s, prefix+"kit/one:v1", map[string][]byte{"one-F32.gguf": one})
			if _, err := pullName(t, s, prefix+"text"); !errors.Is(err, oci.ErrNotModel) {
				t.Errorf("an artifact without a model: %v", err)
			}
			if _, err := pullName(t, s, prefix+"ai/none"); !errors.Is(err, oci.ErrAccess) {
				t.Errorf("a missing repository: %v", err)
			}
		})
	}
}

// A registry with basic authentication gets the login that another program's library
// has stored in docker's file.
func TestPullWithADockerLogin(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(oci.EnvDockerConfig, dir)
	login := &auth.Credential{Username: "me", Password: "p:a ss"}
	p := pusher{t, serve(t, distribution(t, login)), login}
	one := model(t, "one", 0, 1)
	repository := p.repository("private/one")
	p.manifest(repository, "latest", "", "application/vnd.docker.ai.model.config.v0.1+json", p.blob(repository, "application/vnd.docker.ai.gguf.v3", one))
	s, name := newStore(t), "oci:"+p.host+"/private/one"
	if _, err := pullName(t, s, name); !errors.Is(err, oci.ErrAccess) || !strings.Contains(err.Error(), "docker login "+p.host) {
		t.Errorf("without a login: %v", err)
	}
	store, err := credentials.NewStore(filepath.Join(dir, "config.json"), credentials.StoreOptions{AllowPlaintextPut: true})
	if err == nil {
		err = store.Put(t.Context(), p.host, *login)
	}
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, name, map[string][]byte{"model.gguf": one})
}

// A registry behind a proxy that breaks connections is asked again for what is missing.
func TestPullThroughABrokenProxy(t *testing.T) {
	t.Setenv(oci.EnvDockerConfig, t.TempDir())
	p := pusher{t, serve(t, distribution(t, nil)), nil}
	one := model(t, "one", 0, 1)
	repository := p.repository("ai/one")
	p.manifest(repository, "latest", "", "application/vnd.docker.ai.model.config.v0.1+json", p.blob(repository, "application/vnd.docker.ai.gguf.v3", one))
	to, err := url.Parse("http://" + p.host)
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int{500, 1000, 1023, 1024, 5000} {
		proxy := httputil.NewSingleHostReverseProxy(to)
		proxy.ErrorLog = log.New(io.Discard, "", 0)
		proxy.ModifyResponse = func(res *http.Response) error {
			if strings.Contains(res.Request.URL.Path, "/blobs/") {
				res.Body = struct {
					io.Reader
					io.Closer
				}{io.LimitReader(res.Body, int64(limit)), res.Body}
			}
			return nil
		}
		check(t, newStore(t), "oci:"+serve(t, proxy)+"/ai/one", map[string][]byte{"model.gguf": one})
	}
}
