//go:build linux

package pull_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/hub"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/netcut"
)

// newPuller returns a puller for the hub, with small chunks and without waiting.
func newPuller(t *testing.T, h *fakehub.Hub) *pull.Puller {
	t.Helper()
	u, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := &download.Client{
		ChunkSize: 4096, Attempts: 2, Credentials: download.BearerToken(u, "token"),
		Sleep: func(ctx context.Context, _ time.Duration) error { return ctx.Err() },
	}
	return &pull.Puller{Hub: &hub.Hub{Endpoint: u, Client: c}, Client: c}
}

func newStore(t *testing.T, dir string) *modelstore.Store {
	t.Helper()
	s, err := modelstore.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// fill fills a tensor with one byte.
func fill(b byte) ggufgen.Fill {
	return func(w io.Writer, size uint64) error {
		_, err := w.Write(bytes.Repeat([]byte{b}, int(size)))
		return err
	}
}

// model writes a small GGUF file.
func model(t *testing.T, path string, name string) {
	t.Helper()
	b := ggufgen.New("llama")
	b.Text("general.name", name)
	b.Tensor("a", gguf.F32, fill(byte(len(name))), 64, 64)
	write(t, path, b)
}

func write(t *testing.T, path string, b *ggufgen.Builder) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), b.WriteFile(path)); err != nil {
		t.Fatal(err)
	}
}

// repo fills the repository o/r.
func repo(t *testing.T, h *fakehub.Hub) {
	t.Helper()
	dir := filepath.Join(h.Dir, "o", "r")
	model(t, filepath.Join(dir, "m-Q4_K_M.gguf"), "four")
	model(t, filepath.Join(dir, "m-Q8_0.gguf"), "eight bits")
	for no := range 2 {
		b := ggufgen.New("llama")
		b.Uint("split.count", 2)
		b.Uint("split.no", uint32(no))
		b.Tensor(string(rune('a'+no)), gguf.F32, fill(byte(no)), 64, 64)
		write(t, filepath.Join(dir, "BF16", []string{"m-BF16-00001-of-00002.gguf", "m-BF16-00002-of-00002.gguf"}[no]), b)
	}
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "mmproj-m-F16.gguf"), b)
}

func pullRef(t *testing.T, p *pull.Puller, s *modelstore.Store, name string) (*modelstore.Record, error) {
	t.Helper()
	ref, err := modelref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.Find(t.Context(), ref)
	if err != nil {
		return nil, err
	}
	return p.Pull(t.Context(), s, f)
}

func TestPullFromAHub(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	var done, total int64
	p.Progress = func(_ string, d, n int64) { done, total = d, n }
	r, err := pullRef(t, p, s, "hf:o/r:Q4_K_M")
	if err != nil {
		t.Fatal(err)
	}
	if r.Name != "hf:o/r:Q4_K_M" || r.Revision != fakehub.Commit || r.License != "apache-2.0" || len(r.Files) != 2 || !r.Verified() || done != total || total != r.Bytes() {
		t.Errorf("%+v, %d of %d", r, done, total)
	}
	if projector, ok := r.Projector(); !ok || projector.Name != "mmproj-m-F16.gguf" {
		t.Errorf("%+v", projector)
	}
	f, err := gguf.Open(s.Path(r, r.Files[0]))
	if err != nil || f.Name() != "four" {
		t.Fatalf("%v", err)
	}
	if err := errors.Join(f.Close(), s.Verify(t.Context(), r)); err != nil {
		t.Error(err)
	}

	// What is in the store is not fetched again.
	before := h.Requests()
	if _, err := pullRef(t, p, s, "hf:o/r:Q4_K_M@"+fakehub.Commit); err != nil || h.Requests() != before {
		t.Errorf("%d requests, %v", h.Requests()-before, err)
	}
	// All parts of a split model come, and it can be opened.
	p.NoProjector = true
	r, err = pullRef(t, p, s, "hf:o/r/BF16/m-BF16-00001-of-00002.gguf")
	if err != nil || len(r.Files) != 2 || r.Files[1].Role != modelstore.RolePart {
		t.Fatalf("%+v, %v", r, err)
	}
	if f, err = gguf.Open(s.Path(r, r.Files[0])); err != nil || f.Parts() != 2 {
		t.Fatalf("%v", err)
	}
	_ = f.Close()
	// Without a machine, the usual quantisation is chosen.
	ref, err := modelref.Parse("hf:o/r")
	if err != nil {
		t.Fatal(err)
	}
	found, err := p.Find(t.Context(), ref)
	if err != nil || found.Record.Name != "hf:o/r:Q4_K_M" || !strings.Contains(found.Why, "usual") {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestPullErrors(t *testing.T) {
	h := fakehub.Start(t)
	h.Token = "other"
	repo(t, h)
	dir := filepath.Join(h.Dir, "o", "bad")
	text := func(name, content string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(h.Dir, name)), 0o700), os.WriteFile(filepath.Join(h.Dir, name), []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	text("o/bad/page-Q4_0.gguf", "<!DOCTYPE html><html>log in</html>")
	text("o/bad/pointer-Q5_0.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
	text("o/gated/GATED", "x")
	b := ggufgen.New("llama")
	b.Text("general.type", "adapter")
	b.Tensor("blk.0.attn_q.weight.lora_a", gguf.F32, fill(1), 8, 4)
	write(t, filepath.Join(dir, "lora-Q8_0.gguf"), b)
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	for name, c := range map[string]struct {
		want error
		says string
	}{
		"hf:o/bad:Q4_0":    {gguf.ErrNotGGUF, "web page"},
		"hf:o/bad:Q5_0":    {gguf.ErrNotGGUF, "git-lfs"},
		"hf:o/bad:Q8_0":    {pull.ErrNotModel, "adapter"},
		"hf:o/bad:Q9":      {hub.ErrChoice, "it has"},
		"hf:o/none":        {hub.ErrNotFound, "HF_TOKEN"},
		"hf:o/gated":       {hub.ErrAccess, "accept them"},
		"hf:o/r@v9":        {hub.ErrNotFound, "no branch"},
		"hf:o/r/none.gguf": {hub.ErrChoice, "no file"},
		"model.gguf":       {modelref.ErrInvalid, "path"},
	} {
		if r, err := pullRef(t, p, s, name); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %+v, %v; want %v with %q", name, r, err, c.want, c.says)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("in the store: %+v, %v", all, err)
	}
}

func TestPullFromAWebServer(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	p, s := newPuller(t, h), newStore(t, t.TempDir())
	address := h.URL + "/o/r/resolve/" + fakehub.Commit + "/m-Q8_0.gguf"
	r, err := pullRef(t, p, s, address)
	if err != nil || r.Verified() || r.Files[0].Name != "m-Q8_0.gguf" || r.Files[0].Size == 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	sum := r.Files[0].SHA256
	if r, err = pullRef(t, p, s, address+"#sha256="+sum); err != nil || !r.Verified() || r.Files[0].Size <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err = pullRef(t, p, s, address+"#sha256="+strings.Repeat("ab", 32)); !errors.Is(err, download.ErrDigest) {
		t.Errorf("%v", err)
	}
	if all, err := s.List(); err != nil || len(all) != 2 {
		t.Errorf("in the store: %+v, %v", all, err)
	}
	ref, err := modelref.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := s.Lookup(ref); err != nil || r.Name != address {
		t.Errorf("%+v, %v", r, err)
	}
}

// Two processes that pull one model at the same time fetch it once.
func TestTwoPullsFetchOnce(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		p, s := newPuller(t, h), newStore(t, dir)
		p.NoProjector = true
		wg.Go(func() {
			if _, err := pullRef(t, p, s, "hf:o/r:Q8_0"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	info, err := os.Stat(filepath.Join(h.Dir, "o/r/m-Q8_0.gguf"))
	if err != nil || h.Served() != info.Size() {
		t.Errorf("%d bytes were sent, want %d (%v)", h.Served(), info.Size(), err)
	}
}

// rounds returns the number of rounds of "mage torture", 1 without it.
func rounds() int {
	n, err := strconv.Atoi(os.Getenv("GOROCM_TORTURE"))
	if err != nil || n < 1 {
		return 1
	}
	return n
}

// A connection may break anywhere in a pull, from the listing to the last byte of the
// model: the model is whole afterwards. The packages below always try every byte.
func TestPullSurvivesCuts(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	var cut netcut.Cutter
	stride := cases.Of(4093, 1021, 509) // primes, so that the cuts fall everywhere in lines and chunks
	n, cuts, base := 0, 0, t.TempDir()
	for ; ; n += max(1, stride/rounds()) {
		cuts++
		cut.After(n)
		if err := pullOnce(t, h, &cut, filepath.Join(base, "store")); err != nil {
			t.Fatalf("after %d bytes: %v", n, err)
		}
		if !cut.Done() {
			break
		}
	}
	if n < 20<<10 {
		t.Errorf("everything came in %d bytes", n)
	}
	t.Logf("%d pulls, of %d bytes each", cuts, n)
}

// pullOnce pulls a model into a new store over connections that are cut, and leaves
// nothing open.
func pullOnce(t *testing.T, h *fakehub.Hub, cut *netcut.Cutter, dir string) error {
	t.Helper()
	s, err := modelstore.Open(dir)
	if err != nil {
		return err
	}
	p, transport := newPuller(t, h), cut.Transport()
	defer transport.CloseIdleConnections()
	p.Client.Transport = transport
	r, err := pullRef(t, p, s, "hf:o/r:Q8_0")
	if err == nil {
		err = s.Verify(t.Context(), r)
	}
	return errors.Join(err, s.Close(), os.RemoveAll(dir))
}

// The token goes to the hub, and not where the hub redirects to.
func TestPullOfAGatedRepository(t *testing.T) {
	h := fakehub.Start(t)
	h.Token = "token"
	repo(t, h)
	if err := os.WriteFile(filepath.Join(h.Dir, "o/r/GATED"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pullRef(t, newPuller(t, h), newStore(t, t.TempDir()), "hf:o/r:Q4_K_M"); err != nil {
		t.Error(err)
	}
}

// New reads the environment of the hub's own clients.
func TestNewFromTheEnvironment(t *testing.T) {
	h := fakehub.Start(t)
	h.Token = "from the environment"
	repo(t, h)
	if err := os.WriteFile(filepath.Join(h.Dir, "o/r/GATED"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NETRC", filepath.Join(t.TempDir(), "none"))
	t.Setenv(hub.EnvEndpoint, h.URL)
	t.Setenv(hub.EnvToken, h.Token)
	p, err := pull.New(http.DefaultTransport, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pullRef(t, p, newStore(t, t.TempDir()), "hf:o/r:Q4_K_M"); err != nil {
		t.Error(err)
	}
	t.Setenv(hub.EnvEndpoint, "nowhere")
	if _, err := pull.New(nil, nil); err == nil {
		t.Error("an endpoint without a host")
	}
}
