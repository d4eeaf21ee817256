//go:build linux

package pull_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
	"forge.lthn.ai/core/go-rocm/testing/fakeregistry"
)

// A model comes from a registry, is locked, and comes from there again.
func TestPullFromARegistry(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	read := func(name string) []byte {
		raw, err := os.ReadFile(filepath.Join(h.Dir, "o/r", name))
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	r := fakeregistry.Start(t)
	const docker = "application/vnd.docker.ai.gguf.v3"
	digest := r.AddManifest("ai/m", "q8", r.AddBlob(docker, read("m-Q8_0.gguf")), r.AddBlob("application/vnd.docker.ai.mmproj", read("mmproj-m-F16.gguf")))
	r.AddManifest("ai/split", "latest", r.AddBlob(docker, read("BF16/m-BF16-00001-of-00002.gguf")), r.AddBlob(docker, read("BF16/m-BF16-00002-of-00002.gguf")))
	forged := r.AddBlob(docker, read("m-Q4_K_M.gguf"))
	forged.Size++
	r.AddManifest("ai/forged", "latest", forged)

	p, s := newPuller(t, h), newStore(t, t.TempDir())
	one, err := pullRef(t, p, s, "oci:"+r.Host+"/ai/m:q8")
	if err != nil || one.Revision != digest || !one.Verified() || len(one.Files) != 2 {
		t.Fatalf("%+v, %v", one, err)
	}
	split, err := pullRef(t, p, s, "oci:"+r.Host+"/ai/split")
	if err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Open(s.Path(split, split.Files[0]))
	if err != nil || f.Parts() != 2 {
		t.Fatalf("%v", err)
	}
	_ = f.Close()
	if _, err := pullRef(t, p, s, "oci:"+r.Host+"/ai/forged"); !errors.Is(err, download.ErrSize) {
		t.Errorf("a forged size: %v", err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 {
		t.Fatalf("%+v, %v", all, err)
	}
	l, err := pull.NewLock(all)
	if err != nil {
		t.Fatal(err)
	}
	other := newStore(t, t.TempDir())
	if err := p.PullLocked(t.Context(), other, l, ""); err != nil {
		t.Fatal(err)
	}
	if got, err := other.Get(one.Name); err != nil || other.Verify(t.Context(), got) != nil {
		t.Errorf("%+v, %v", got, err)
	}
	// What the store has needs no registry.
	p.Client.Transport = offline{}
	if err := p.PullLocked(t.Context(), other, l, ""); err != nil {
		t.Errorf("without a network: %v", err)
	}
	if err := p.PullLocked(t.Context(), newStore(t, t.TempDir()), l, ""); !errors.Is(err, errOffline) {
		t.Errorf("an empty store without a network: %v", err)
	}
}

var errOffline = errors.New("no network")

// offline is a transport without a network.
type offline struct{}

func (offline) RoundTrip(*http.Request) (*http.Response, error) { return nil, errOffline }
