//go:build linux

package supervise

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

func mkdir(t *testing.T, mode fs.FileMode, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil { // regardless of the umask
		t.Fatal(err)
	}
	return dir
}

func modeOf(t *testing.T, name string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// A named directory that is open to others is rejected. Neither its mode nor the
// files in it that are not of a run change.
func TestOpenSocketDirIsRejected(t *testing.T) {
	for _, mode := range []fs.FileMode{0o755, 0o770, 0o701, 0o777} {
		dir := mkdir(t, mode, t.TempDir(), "shared")
		old := time.Now().Add(-time.Hour)
		for _, name := range []string{"empty", "0123456", "0123456789", "0123456G", "0123ABCD", "00c0ffee"} {
			if err := os.Chtimes(mkdir(t, 0o700, dir, name), old, old); err != nil {
				t.Fatal(err)
			}
		}
		spec := fakeSpec(t, roleServer, fakellama.Script{})
		spec.SocketDir = dir
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrPermission) {
			t.Errorf("%#o: %v, want ErrPermission", mode, err)
		}
		if got := modeOf(t, dir); got != mode.Perm() {
			t.Errorf("%#o became %#o", mode, got)
		}
		if n, err := ReapOrphans(dir, nil); n != 0 || err != nil {
			t.Errorf("killed %d, %v", n, err)
		}
		var left []string
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, e.Name())
		}
		// 00c0ffee has the name of a run and is removed.
		if want := []string{"0123456", "0123456789", "0123456G", "0123ABCD", "empty"}; !slices.Equal(left, want) {
			t.Errorf("left %q, want %q", left, want)
		}
	}
}

// A default directory that a mount or a user has opened is closed again.
func TestDefaultSocketDirIsClosed(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("GOROCM_CACHE", t.TempDir())
	dir := mkdir(t, 0o770, os.Getenv("GOROCM_CACHE"), "run")
	spec := fakeSpec(t, roleServer, fakellama.Script{})
	spec.SocketDir = ""
	c := mustStart(t, spec)
	if filepath.Dir(c.dir) != dir || modeOf(t, dir) != 0o700 {
		t.Errorf("the run is %s, its directory has mode %#o", c.dir, modeOf(t, dir))
	}
}

// su keeps XDG_RUNTIME_DIR: another user's directory is not used.
func TestDefaultSocketDir(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("GOROCM_CACHE", cache)
	own := t.TempDir()
	choices := map[string]string{
		own:                           filepath.Join(own, "go-rocm"),
		filepath.Join(own, "missing"): filepath.Join(cache, "run"),
		"relative":                    filepath.Join(cache, "run"),
		"/dev/null":                   filepath.Join(cache, "run"),
		"":                            filepath.Join(cache, "run"),
	}
	if os.Geteuid() == 0 {
		others := mkdir(t, 0o777, t.TempDir(), "others")
		if err := os.Chown(others, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		choices[others] = filepath.Join(cache, "run")
		if !usableBy(own, 12345) || !usableBy(others, 12345) || usableBy(others, 54321) {
			t.Error("root's directory is for users who can write to it, another user's for nobody else")
		}
	} else {
		choices["/"] = filepath.Join(cache, "run") // root's, and not writable
	}
	for dir, want := range choices {
		t.Setenv("XDG_RUNTIME_DIR", dir)
		if got, err := defaultSocketDir(); got != want || err != nil {
			t.Errorf("XDG_RUNTIME_DIR=%s: %s, %v; want %s", dir, got, err, want)
		}
	}
}

// Without XDG_RUNTIME_DIR, the socket is in the directory of the unpacked bundles,
// also where HOME is unset or another user's.
func TestDefaultSocketDirIsInCache(t *testing.T) {
	service, home := t.TempDir(), t.TempDir()
	for _, name := range []string{"XDG_RUNTIME_DIR", "GOROCM_CACHE", "XDG_CACHE_HOME", "HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("CACHE_DIRECTORY", service)
	want := filepath.Join(service, "go-rocm", "run")
	if got, err := defaultSocketDir(); got != want || err != nil {
		t.Errorf("HOME unset: %s, %v; want %s", got, err, want)
	}
	t.Setenv("HOME", home)
	t.Setenv("CACHE_DIRECTORY", "")
	want = filepath.Join(home, ".cache", "go-rocm", "run")
	if got, err := defaultSocketDir(); got != want || err != nil {
		t.Errorf("HOME: %s, %v; want %s", got, err, want)
	}
	if os.Geteuid() != 0 {
		return
	}
	users := mkdir(t, 0o755, t.TempDir(), "user")
	if err := os.Chown(users, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_CACHE_HOME", filepath.Join(users, ".cache"))
	if got, err := defaultSocketDir(); got != want || err != nil {
		t.Errorf("root with a user's XDG_CACHE_HOME: %s, %v; want %s", got, err, want)
	}
	if left, err := os.ReadDir(users); err != nil || len(left) != 0 {
		t.Errorf("left in the user's directory: %v, %v", left, err)
	}
}

// Fault 26: another process answers on the child's socket.
func TestFault26_WrongPeer(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{Process: fakellama.Process{NeverListens: true}})
		other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"status":"ok"}`)
		})}
		var served sync.WaitGroup
		spec.OnEvent = func(e Event) {
			if e.To != Starting || e.Pid == 0 {
				return
			}
			args := processArgs(t, e.Pid)
			l, err := (&net.ListenConfig{}).Listen(context.Background(), "unix", args["--host"])
			if err != nil {
				t.Errorf("the other server cannot listen: %v", err)
				return
			}
			served.Go(func() { _ = other.Serve(l) })
		}
		_, err := Start(t.Context(), spec)
		if !errors.Is(err, ErrWrongPeer) {
			t.Errorf("got %v, want ErrWrongPeer", err)
		}
		_ = other.Close()
		served.Wait()

		spec = fakeSpec(t, roleServer, fakellama.Script{Health: fakellama.HealthWrong})
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrWrongPeer) {
			t.Errorf("got %v, want ErrWrongPeer for a foreign /health", err)
		}
	})
}

// processArgs reads the flags of a running process.
func processArgs(t *testing.T, pid int) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil {
		t.Error(err)
		return nil
	}
	out := map[string]string{}
	args := strings.Split(string(raw), "\x00")
	for i := 0; i+1 < len(args); i++ {
		out[args[i]] = args[i+1]
	}
	return out
}

// Fault 27: a stale socket, another file in its place, and a path that is too long
// for a socket.
func TestFault27_SocketPaths(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{Faults: []fakellama.Fault{{Kind: fakellama.KindCrash, Request: 1}}})
		spec.SocketDir = filepath.Join(t.TempDir(), strings.Repeat("long, ", 20))
		spec.Restart = RestartPolicy{Mode: OnFailure, MinBackoff: time.Millisecond}
		c := mustStart(t, spec)
		if len(c.Addr()) > maxSocketPath {
			t.Errorf("the socket's path has %d bytes", len(c.Addr()))
		}
		info, err := os.Stat(filepath.Dir(c.Addr()))
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("the socket's directory: %v, %v; want 0700", info.Mode(), err)
		}
		events, done := c.Subscribe()
		defer done()
		first := c.Pid()
		if err := unix.Kill(first, unix.SIGKILL); err != nil { // leaves its socket behind
			t.Fatal(err)
		}
		waitForState(t, events, Ready)
		if c.Pid() == first || c.Pid() == 0 {
			t.Errorf("pid %d after the restart, %d before", c.Pid(), first)
		}
		short := c.record.ShortDir
		stopClean(t, c)
		if _, err := os.Stat(short); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the shorter directory is left: %v", err)
		}

		name := filepath.Join(t.TempDir(), socketName)
		if err := os.WriteFile(name, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := removeStale(name); !errors.Is(err, ErrListen) {
			t.Errorf("a file in the socket's place: %v, want ErrListen", err)
		}
		if _, err := os.Stat(name); err != nil {
			t.Errorf("the file was removed: %v", err)
		}
	})
}

// Fault 27: another user's socket is not removed.
func TestFault27_SocketOfAnotherUser(t *testing.T) {
	const other = 4242
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	path := filepath.Join(t.TempDir(), socketName)
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if err := os.Chown(path, other, other); err != nil {
		t.Fatal(err)
	}
	if err := removeStale(path); !errors.Is(err, ErrPermission) {
		t.Errorf("got %v, want ErrPermission", err)
	}
	var st syscall.Stat_t
	if err := syscall.Lstat(path, &st); err != nil || st.Uid != other {
		t.Errorf("the socket is gone: %v", err)
	}
}

func TestListenOnTCP(t *testing.T) {
	torture.Rounds(t, func(t *testing.T) {
		spec := fakeSpec(t, roleServer, fakellama.Script{})
		spec.TCPAddr = "127.0.0.1:0"
		c := mustStart(t, spec)
		if _, err := readAll(t.Context(), c); err != nil {
			t.Error(err)
		}
		host, port, err := net.SplitHostPort(c.Addr())
		if err != nil || host != "127.0.0.1" || port == "0" {
			t.Errorf("address %s (%v)", c.Addr(), err)
		}
		// On a port in use the child cannot listen and reports it.
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		spec = fakeSpec(t, roleServer, fakellama.Script{})
		spec.TCPAddr = l.Addr().String()
		if _, err := Start(t.Context(), spec); !errors.Is(err, ErrListen) {
			t.Errorf("got %v, want ErrListen", err)
		}
	})
}

// TestDialTCPCachesListener listens in this process: the socket that was found is
// reused as long as it is open, and not after.
func TestDialTCPCachesListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port //nolint:errcheck,forcetypeassert // a TCP listener's address
	var known atomic.Pointer[listener]
	dial := func(pid int) error {
		conn, err := dialTCP(t.Context(), "127.0.0.1", port, pid, &known)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	if err := dial(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	first := known.Load()
	if first == nil || first.port != port || !first.isOpen() {
		t.Fatalf("known: %+v", first)
	}
	if err := dial(os.Getpid()); err != nil || known.Load() != first {
		t.Errorf("the second time: %v, looked up again: %t", err, known.Load() != first)
	}
	if err := dial(1); err == nil {
		t.Error("another process is reported to listen on this port")
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if first.isOpen() {
		t.Error("a closed socket is reported as open")
	}
	if err := dial(os.Getpid()); !errors.Is(err, errNotListening) {
		t.Errorf("after the socket was closed: %v", err)
	}
}
