//go:build linux

package pull_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakehub"
)

// envKilled has the endpoint of the hub for the process that is killed.
const envKilled = "GOROCM_TEST_KILLED"

// A process that is killed while it pulls, at any of many moments, leaves nothing
// that looks like a model; the next one goes on and fetches little twice.
func TestPullSurvivesKills(t *testing.T) {
	h := fakehub.Start(t)
	repo(t, h)
	dir := t.TempDir()
	if endpoint := os.Getenv(envKilled); endpoint != "" {
		h.URL = endpoint
		pullSmallChunks(t, h, os.Getenv("GOROCM_MODELS"))
		return
	}
	reached := make(chan struct{}, 1)
	var limit int64
	h.Blobs = func(w http.ResponseWriter, r *http.Request, path string) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
			return
		}
		http.ServeContent(&stopAt{w, r, h, limit, reached}, r, path, fileTime(t, path), newReader(content))
	}
	info, err := os.Stat(filepath.Join(h.Dir, "o/r/m-Q8_0.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	kills := 0
	for limit = 1; ; limit = h.Served() + 3000 {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), envKilled+"="+h.URL, "GOROCM_MODELS="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t, dir)
			all, err := s.List()
			if err != nil || len(all) != 1 {
				t.Fatalf("%+v, %v", all, err)
			}
			if err := s.Verify(t.Context(), &all[0]); err != nil {
				t.Error(err)
			}
			if kills < 4 || h.Served() > 3*info.Size() {
				t.Errorf("%d kills, %d bytes were sent for a file of %d", kills, h.Served(), info.Size())
			}
			return
		case <-reached:
			kills++
			_ = cmd.Process.Signal(syscall.SIGKILL)
			if err := <-done; err == nil {
				t.Fatal("the killed process succeeded")
			}
			if all, err := newStore(t, dir).List(); err != nil || len(all) != 0 {
				t.Fatalf("after kill %d: %+v, %v", kills, all, err)
			}
			blobs, err := os.ReadDir(filepath.Join(dir, "blobs"))
			if err != nil || len(blobs) != 0 {
				t.Fatalf("after kill %d: %v, %v", kills, blobs, err)
			}
		}
		if kills > 100 {
			t.Fatal("it does not come to an end")
		}
	}
}

func pullSmallChunks(t *testing.T, h *fakehub.Hub, dir string) {
	t.Helper()
	p := newPuller(t, h)
	p.Client.ChunkSize, p.Client.Connections, p.NoProjector = 64, 2, true
	if _, err := pullRef(t, p, newStore(t, dir), "hf:o/r:Q8_0"); err != nil {
		t.Fatal(err)
	}
}

// stopAt sends bodies until the hub has sent limit bytes, and then no more.
type stopAt struct {
	http.ResponseWriter
	r       *http.Request
	h       *fakehub.Hub
	limit   int64
	reached chan<- struct{}
}

// Write implements io.Writer.
func (s *stopAt) Write(p []byte) (int, error) {
	for i := range p {
		if s.h.Served() >= s.limit {
			_ = http.NewResponseController(s.ResponseWriter).Flush()
			select {
			case s.reached <- struct{}{}:
			default:
			}
			<-s.r.Context().Done()
			return i, s.r.Context().Err()
		}
		if _, err := s.ResponseWriter.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}
