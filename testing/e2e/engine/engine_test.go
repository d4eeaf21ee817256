//go:build e2e

// Package engine tests docker/engine with a real daemon, on an image of one program that
// the test builds itself.
package engine_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"forge.lthn.ai/core/go-rocm/docker/containertest"
	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

const image = "go-rocm/test-probe:latest"

// probe compiles the probe, once for all tests.
var probe = sync.OnceValues(func() (program []byte, err error) {
	dir, err := os.MkdirTemp("", "probe-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	bin := filepath.Join(dir, "probe")
	cmd := exec.Command("go", "build", "-o", bin, "./probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the probe: %w\n%s", err, out)
	}
	return os.ReadFile(bin)
})

// probeImage imports the probe as an image.
func probeImage(t *testing.T, e engine.Engine) {
	t.Helper()
	program, err := probe()
	if err != nil {
		t.Fatal(err)
	}
	var rootfs bytes.Buffer
	w := tar.NewWriter(&rootfs)
	for _, h := range []*tar.Header{
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "in/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 1234, Gid: 1234},
		{Name: "out/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: 1234, Gid: 1234},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "probe", Mode: 0o777},
		{Name: "probe", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := e.Import(t.Context(), image, &rootfs)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(img.ID, "sha256:") {
		t.Errorf("imported %+v", img)
	}
}

func TestHermeticJob(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	var log bytes.Buffer
	err := e.Run(t.Context(), engine.Job{
		Name: "facts", Image: image, Cmd: []string{"/probe", "facts"}, Env: []string{"A=1"}, Dir: "/",
		UID: 1234, GID: 1234, Volumes: []string{"/out"}, Log: &log,
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	for _, want := range []string{"uid 1234", "host build", "interface lo", "root writable false", "volume writable true", "env A=1"} {
		if !slices.Contains(lines, want) {
			t.Errorf("missing %q in %q", want, lines)
		}
	}
	podman := slices.Contains(lines, "env container=podman") // sets variables of its own
	for _, l := range lines {
		if strings.HasPrefix(l, "interface ") && l != "interface lo" {
			t.Errorf("the job has a network: %s", l)
		}
		if podman && (l == "env TERM=xterm" || l == "env container=podman") {
			continue
		}
		if strings.HasPrefix(l, "env ") && l != "env A=1" && !strings.HasPrefix(l, "env PATH=") && !strings.HasPrefix(l, "env HOSTNAME=") && !strings.HasPrefix(l, "env HOME=") {
			t.Errorf("the job has a variable nobody gave it: %s", l)
		}
	}
}

func TestFilesInAndOut(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	got := map[string]string{}
	err := e.Run(t.Context(), engine.Job{
		Name: "copy", Image: image, Cmd: []string{"/probe", "copy"}, Dir: "/", UID: 1234, GID: 1234,
		Volumes: []string{"/in", "/out"},
		In: []engine.Input{{Dir: "/in", Write: func(w *tar.Writer) error {
			err := w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: 5, Typeflag: tar.TypeReg})
			if err == nil {
				_, err = io.WriteString(w, "hello")
			}
			return err
		}}},
		Out: []engine.Output{{Path: "/out", Read: func(h *tar.Header, r io.Reader) error {
			b, err := io.ReadAll(r)
			got[h.Name] = string(b)
			return err
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got["out/file"] != "hello copied" {
		t.Errorf("got %q", got)
	}
}

func TestFailedInputStopsTheJob(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	broken := errors.New("broken input")
	err := e.Run(t.Context(), engine.Job{
		Name: "copy", Image: image, Cmd: []string{"/probe", "copy"}, Dir: "/", Volumes: []string{"/in", "/out"},
		In: []engine.Input{{Dir: "/in", Write: func(*tar.Writer) error { return broken }}},
	})
	if err == nil || !strings.Contains(err.Error(), "copy into /in") {
		t.Errorf("got %v", err)
	}
}

func TestExitErrorCarriesTheLastLines(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	err := e.Run(t.Context(), engine.Job{Name: "fail", Image: image, Cmd: []string{"/probe", "fail"}, Dir: "/"})
	var exit *engine.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("got %v", err)
	}
	if exit.Code != 7 || len(exit.LastLogs) < 20 || !slices.Contains(exit.LastLogs, "the reason") || slices.Contains(exit.LastLogs, "line 0") {
		t.Errorf("got %+v", exit)
	}
}

// Ctrl-C must not leave a container that continues to compile.
func TestCancelRemovesTheContainer(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := e.Run(ctx, engine.Job{
		Name: "sleep", Image: image, Cmd: []string{"/probe", "sleep"}, Dir: "/",
		Log: writer(func([]byte) { cancel() }),
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := containers(t, e); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

type writer func([]byte)

func (w writer) Write(p []byte) (int, error) { w(p); return len(p), nil }

// containers returns our containers of the probe image.
func containers(t *testing.T, e engine.Engine) []string {
	t.Helper()
	img, err := e.Image(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	list, err := api.ContainerList(t.Context(), container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("ancestor", strings.TrimPrefix(img.ID, "sha256:")))})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, c := range list {
		ids = append(ids, c.ID)
	}
	return ids
}

// A build that was killed leaves its container; the next one removes it.
func TestLeftoversOfAKilledRunAreRemoved(t *testing.T) {
	if os.Getenv("TEST_RUN_AND_HANG") != "" {
		e := containertest.Engine(t)
		t.Fatal(e.Run(context.Background(), engine.Job{Name: "sleep", Image: image, Cmd: []string{"/probe", "sleep"}, Dir: "/", Log: os.Stdout}))
	}
	e := containertest.Engine(t)
	probeImage(t, e)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLeftoversOfAKilledRunAreRemoved$")
	cmd.Env = append(os.Environ(), "TEST_RUN_AND_HANG=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("sleeping"))); err != nil {
		t.Fatalf("the job did not start: %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if left := containers(t, e); len(left) != 1 {
		t.Fatalf("expected the orphan, got %v", left)
	}
	containertest.Engine(t)
	poll.Until(t, "the removal of the orphan", func() bool { return len(containers(t, e)) == 0 })
}

// An image that is committed from a job inherits the job's labels, and so do the containers
// that a person creates from that image. The next build must not remove those.
func TestContainersOfCommittedImagesAreKept(t *testing.T) {
	const committed = "go-rocm/test-committed:latest"
	if os.Getenv("TEST_COMMIT") != "" {
		e := containertest.Engine(t)
		if err := e.Run(t.Context(), engine.Job{Name: "commit", Image: image, Cmd: []string{"/probe", "facts"}, Dir: "/", CommitAs: committed}); err != nil {
			t.Fatal(err)
		}
		return
	}
	e := containertest.Engine(t)
	probeImage(t, e)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestContainersOfCommittedImagesAreKept$")
	cmd.Env = append(os.Environ(), "TEST_COMMIT=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	img, err := e.Image(t.Context(), committed)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range img.Labels {
		if strings.HasPrefix(name, "org.lthn.go-rocm.") && value != "" {
			t.Errorf("the image has the job's label %s=%q", name, value)
		}
	}
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	own, err := api.ContainerCreate(t.Context(), &container.Config{Image: committed, Cmd: []string{"/probe", "facts"}}, nil, nil, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := api.ContainerRemove(context.Background(), own.ID, container.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	})
	containertest.Engine(t)
	if _, err := api.ContainerInspect(t.Context(), own.ID); err != nil {
		t.Errorf("the next run removed a person's container: %v", err)
	}
}

// An incomplete root file system does not become an image, even if the received part is a
// complete archive.
func TestFailedImportMakesNoImage(t *testing.T) {
	e := containertest.Engine(t)
	const ref = "go-rocm/test-failed:latest"
	broken := errors.New("broken root")
	for name, write := range map[string]func(io.Writer) error{
		"nothing": func(io.Writer) error { return broken },
		"a whole archive": func(w io.Writer) error {
			tw := tar.NewWriter(w)
			return errors.Join(tw.WriteHeader(&tar.Header{Name: "f", Mode: 0o644, Typeflag: tar.TypeReg}), tw.Close(), broken)
		},
	} {
		if img, err := engine.ImportFrom(t.Context(), e, ref, write); !errors.Is(err, broken) {
			t.Errorf("%s: %+v, %v", name, img, err)
		}
		if img, err := e.Image(t.Context(), ref); !errors.Is(err, engine.ErrNoImage) {
			t.Errorf("%s: the engine holds %+v, %v", name, img, err)
		}
	}
}

// A job's standard output becomes an image while it is written: neither the container nor
// the engine's log has a copy of it.
func TestImportOfStandardOutput(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	const ref = "go-rocm/test-stream:latest"
	var log bytes.Buffer
	job := engine.Job{Name: "archive", Image: image, Cmd: []string{"/probe", "archive"}, Dir: "/", UID: 1234, GID: 1234, Log: &log}
	if _, err := engine.ImportFrom(t.Context(), e, ref, func(w io.Writer) error {
		job.Stdout = w
		return e.Run(t.Context(), job)
	}); err != nil {
		t.Fatal(err)
	}
	if log.String() != "archiving\n" {
		t.Errorf("the log has %d bytes: %.80q", log.Len(), log.String())
	}
	files, err := e.Files(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := files.Close(); err != nil {
			t.Error(err)
		}
	}()
	if entry, err := files.Stat(t.Context(), "/large"); err != nil || entry.Size != 64<<20 {
		t.Errorf("the imported file: %+v, %v", entry, err)
	}
	// A reader that fails ends the job, which would wait forever for room in the stream.
	full := errors.New("no room")
	job.Stdout = failingWriter{full}
	if err := e.Run(t.Context(), job); !errors.Is(err, full) {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

func TestFilesOfAnImage(t *testing.T) {
	e := containertest.Engine(t)
	probeImage(t, e)
	f, err := e.Files(t.Context(), image)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	if s, err := f.Stat(t.Context(), "/link"); err != nil || s.LinkTarget == "" {
		t.Errorf("link: %+v, %v", s, err)
	}
	if s, err := f.Stat(t.Context(), "/probe"); err != nil || s.Size == 0 || s.Dir || s.LinkTarget != "" {
		t.Errorf("file: %+v, %v", s, err)
	}
	if _, err := f.Stat(t.Context(), "/none"); !errors.Is(err, engine.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := e.Image(t.Context(), "go-rocm/no-such:image"); !errors.Is(err, engine.ErrNoImage) {
		t.Errorf("missing image: %v", err)
	}
}
