//go:build linux && amd64

package cli

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// logged returns the paths of the requests in an access log, and none if there is no
// such file.
func logged(t *testing.T, path string) []string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	var routes []string
	for line := range strings.Lines(string(raw)) {
		var r activity.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %q: %v", path, line, err)
		}
		routes = append(routes, r.Route)
	}
	return routes
}

// A file that is no regular one is rejected at once, also when the log is opened again,
// and the previous file remains in use.
func TestAccessLogIsARegularFile(t *testing.T) {
	dir := t.TempDir()
	fifo, file := filepath.Join(dir, "fifo"), filepath.Join(dir, "log")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, says := range map[string]string{fifo: "is a named pipe; name a regular file", dir: "is a directory; name a regular file", filepath.Join(dir, "no/log"): "no such file"} {
		f := &observeFlags{accessLog: path}
		_, err := openAccessLog(path, new(cobra.Command), slog.New(slog.DiscardHandler))
		for _, err := range []error{err, f.checkObserve()} {
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: %v, want %q", path, err, says)
			}
		}
	}
	for _, path := range []string{"-", file, os.DevNull} {
		if err := (&observeFlags{accessLog: path}).checkObserve(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("the check has created the file: %v", err)
	}
	a, err := openAccessLog(file, new(cobra.Command), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(file, 0o600); err != nil {
		t.Fatal(err)
	}
	before := a.file
	if err := a.open(); err == nil || a.file != before {
		t.Errorf("opened again as a FIFO: %v", err)
	}
	_ = a.file.Close()
}

// After logrotate has renamed the file and sent SIGHUP, requests are in a new file. If
// that cannot be opened, they are still in the previous one.
func TestAccessLogIsReopened(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "a"})
	path := filepath.Join(w.dir, "access.log")
	rotated := path + ".1"
	s := w.serve(t, "--access-log", path)
	ask := func(route string) {
		t.Helper()
		if status, text := fetch(t, http.MethodPost, s.url+route, `{"prompt":"x","content":"x","max_tokens":1}`); status != http.StatusOK {
			t.Fatalf("%s: %d %s", route, status, text)
		}
	}
	expect := func(path string, want ...string) {
		t.Helper()
		// A request is logged after its answer has been sent.
		poll.Until(t, strings.Join(want, ", ")+" in "+path, func() bool { return strings.Join(logged(t, path), " ") == strings.Join(want, " ") })
	}
	reload := func() {
		t.Helper()
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}

	ask("/completion")
	expect(path, "/completion")
	if err := os.Rename(path, rotated); err != nil {
		t.Fatal(err)
	}
	ask("/tokenize") // before the signal
	expect(rotated, "/completion", "/tokenize")
	reload()
	poll.Until(t, "the new file", func() bool { _, err := os.Stat(path); return err == nil })
	ask("/v1/completions")
	expect(path, "/v1/completions")
	expect(rotated, "/completion", "/tokenize")

	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	reload()
	poll.Until(t, "the error in the log", func() bool { return strings.Contains(s.errs.String(), "the previous file remains in use") })
	ask("/tokenize")
	expect(path+".2", "/v1/completions", "/tokenize")
	s.end(t)
}
