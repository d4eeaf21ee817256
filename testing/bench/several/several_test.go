//go:build linux && amd64

package several

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// input returns an input with a fake llama-server, and a second go-rocm as the peer: the
// fake is no router.
func input(t *testing.T) Input {
	t.Helper()
	command := filepath.Join(t.TempDir(), "go-rocm")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", command, "./cmd/go-rocm")
	build.Dir = filepath.Join("..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	model := fakebundle.Use(t, fakellama.Script{NeverEnds: true})
	in := Input{
		Command: command, Bundle: os.Getenv("GOROCM_BUNDLE"), Real: model, Tiny: model, RealName: "real", TinyName: "tiny", Work: t.TempDir(),
		Rounds: 1, Levels: []Level{{1, 5, 2}, {3, 4, 1}}, TinyLevels: []Level{{2, 5, 1}}, Idle: 10, Log: io.Discard,
	}
	in.peer = func(ctx context.Context, c *child) (*service, error) {
		if c.value("--host") == "" || c.dir == "" {
			t.Errorf("the child is %+v", c)
		}
		same := in
		same.dir, same.slots = filepath.Join(in.Work, "models"), 3
		host, err := same.hostMiB()
		if err != nil {
			return nil, err
		}
		return same.startOurs(ctx, host)
	}
	return in
}

func check(t *testing.T, s page.Section, rows, goals int) {
	t.Helper()
	if len(s.Rows) != rows || len(s.Goals) != goals {
		t.Errorf("%d rows and %d goals, want %d and %d: %+v", len(s.Rows), len(s.Goals), rows, goals, s)
	}
	for _, row := range s.Rows {
		if len(row) != len(s.Head) {
			t.Errorf("row %q under %q", row, s.Head)
		}
	}
}

func TestModelsHasARowForEachMeasurement(t *testing.T) {
	s, err := Models(t.Context(), input(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 3+3+2*3+1+3, 1+2+2+1)
}

// A bundle without a router is measured, too.
func TestModelsWithoutARouter(t *testing.T) {
	in := input(t)
	in.peer = func(context.Context, *child) (*service, error) { return nil, errNoRouter }
	s, err := Models(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 3+3+2*3+1+3, 1+2+1+1)
	if text := s.Text[len(s.Text)-1]; !strings.Contains(text, "without subprocesses") {
		t.Error(text)
	}
}

// A service and what it is compared with are asked over the same kind of socket, although
// the child of a service listens on a unix socket.
func TestComparisonsBeginWithTCP(t *testing.T) {
	in := input(t)
	ours, c, err := in.start(t.Context(), fileTiny)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := ours.stop(); err != nil {
			t.Error(err)
		}
	}()
	if !strings.HasPrefix(c.value("--host"), "/") {
		t.Errorf("the child listens on %q", c.value("--host"))
	}
	direct, err := in.direct(t.Context(), ours, fileTiny)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := direct.close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := direct.stream(t.Context(), 2); err != nil {
		t.Error(err)
	}
	for _, base := range []string{ours.base, direct.base} {
		if !strings.HasPrefix(base, "http://127.0.0.1:") || base == "http://127.0.0.1:" {
			t.Errorf("asked at %s", base)
		}
	}
	if ours.base == direct.base {
		t.Error("the service is compared with itself")
	}
}

func TestCPUIsMeasuredQuietAndBusy(t *testing.T) {
	in := input(t)
	s, err := CPU(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 2, 2)
}

// The peer gets the arguments of the child, without those that name its model and its
// address, and for the CPU without what go-rocm sets for its threads.
func TestPeerHasTheArgumentsOfTheChild(t *testing.T) {
	c := &child{
		argv: []string{"/b/ld.so", "--library-path", "/b", "/b/llama-server", "--host", "/s", "--threads", "2", "--model", "m", "--ctx-size", "9"},
		env:  []string{"LLAMA_API_KEY=secret", "OMP_WAIT_POLICY=passive", "GOMP_SPINCOUNT=0", "LLAMA_ARG_THREADS=1", "HOME=/"},
	}
	plain := c.untuned()
	if got := strings.Join(plain.argv, " "); got != "/b/ld.so --library-path /b /b/llama-server --host /s --model m --ctx-size 9" {
		t.Error(got)
	}
	if got := strings.Join(plain.env, " "); got != "LLAMA_API_KEY=secret HOME=/" {
		t.Error(got)
	}
	if c.key() != "secret" || c.value("--host") != "/s" || c.value("--port") != "" {
		t.Errorf("%q %q", c.key(), c.value("--host"))
	}
}

// The libraries that make llama-server a router come before those of the bundle, for the
// router by its loader's argument and for its children by the environment.
func TestRouterHasItsOwnLibraries(t *testing.T) {
	for _, test := range []struct {
		argv               []string
		dir, wantArgv, env string
	}{
		{[]string{"/b/ld.so", "--library-path", "/b", "/b/llama-server", "--threads", "2"}, "/r", "/b/ld.so --library-path /r:/b /b/llama-server --threads 2", "/r:/b"},
		{[]string{"/b/ld.so", "--library-path", "/b", "/b/llama-server"}, "", "/b/ld.so --library-path /b /b/llama-server", "/b"},
		{[]string{"/b/llama-server", "--library-path", "x"}, "/r", "/b/llama-server --library-path x", "/r"},
		{[]string{"/b/llama-server"}, "", "/b/llama-server", ""},
	} {
		before := strings.Join(test.argv, " ")
		c := (&child{argv: test.argv, dir: "/b"}).withLibraries(test.dir)
		if got := strings.Join(c.argv, " "); got != test.wantArgv || c.libraryPath() != test.env {
			t.Errorf("%s with %q: %s, LD_LIBRARY_PATH=%s", before, test.dir, got, c.libraryPath())
		}
		if strings.Join(test.argv, " ") != before {
			t.Errorf("the arguments of the child became %q", test.argv)
		}
	}
}
