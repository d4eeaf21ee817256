package goproxy_test

import (
	"archive/zip"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"forge.lthn.ai/core/go-rocm/packaging/goproxy"
	"forge.lthn.ai/core/go-rocm/testing/ctxtest"
)

var made = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func version(v string) goproxy.Version {
	return goproxy.Version{Path: "example.org/Thing", Version: v, Time: made}
}

// sources writes a module and returns its files.
func sources(t *testing.T, files map[string]string) []goproxy.File {
	t.Helper()
	dir := t.TempDir()
	var out []goproxy.File
	for name, text := range files {
		from := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(from), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(from, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		out = append(out, goproxy.File{Name: name, From: from})
	}
	return out
}

func thing() map[string]string {
	return map[string]string{
		"go.mod": "module example.org/Thing\n\ngo 1.26\n", "a.go": "package thing\n", "data/x.bin": "\x00\x01",
		"nested/go.mod": "module example.org/Thing/nested\n", "nested/b.go": "package nested\n",
	}
}

func pack(t *testing.T, v goproxy.Version, files []goproxy.File) string {
	t.Helper()
	dir := t.TempDir()
	if err := goproxy.Pack(t.Context(), dir, v, files); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPackWritesAModule(t *testing.T) {
	t.Parallel()
	dir := pack(t, version("v1.2.3"), sources(t, thing()))
	if got := read(t, dir, "v1.2.3.info"); got != `{"Version":"v1.2.3","Time":"2026-11-20T12:00:00Z"}`+"\n" {
		t.Errorf("info: %q", got)
	}
	if got := read(t, dir, "v1.2.3.mod"); got != thing()["go.mod"] {
		t.Errorf("mod: %q", got)
	}
	z, err := zip.OpenReader(filepath.Join(dir, "v1.2.3.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = z.Close() }()
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	const prefix = "example.org/Thing@v1.2.3/"
	if diff := cmp.Diff([]string{prefix + "a.go", prefix + "data/x.bin", prefix + "go.mod"}, names); diff != "" {
		t.Error(diff)
	}
	if _, err := modzip.CheckZip(module.Version{Path: "example.org/Thing", Version: "v1.2.3"}, filepath.Join(dir, "v1.2.3.zip")); err != nil {
		t.Error(err)
	}
}

// The same files produce the same bytes in any order and environment.
func TestPackIsReproducible(t *testing.T) {
	one := pack(t, version("v1.2.3"), sources(t, thing()))
	t.Setenv("TZ", "Pacific/Chatham")
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	v := version("v1.2.3")
	v.Time = made.In(time.FixedZone("x", 3600))
	files := sources(t, thing()) // another directory, and the random order of a map
	for _, f := range files {
		if err := os.Chtimes(f.From, made, made); err != nil {
			t.Fatal(err)
		}
	}
	two := pack(t, v, files)
	for _, name := range []string{"v1.2.3.zip", "v1.2.3.mod", "v1.2.3.info"} {
		if read(t, one, name) != read(t, two, name) {
			t.Errorf("%s differs", name)
		}
		if info, err := os.Stat(filepath.Join(two, name)); err != nil || info.Mode() != 0o644 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestPackRejects(t *testing.T) {
	t.Parallel()
	whole := sources(t, thing())
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, modzip.MaxZipFile); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		v     goproxy.Version
		files []goproxy.File
		want  string
	}{
		"build metadata":                 {version("v1.2.3+llama.0.5.0"), whole, "use a version such as v0.1.0"},
		"short version":                  {version("v1.2"), whole, "use a version such as v0.1.0"},
		"wrong major":                    {version("v2.0.0"), whole, "use a version such as v0.1.0"},
		"no time":                        {goproxy.Version{Path: "example.org/Thing", Version: "v1.2.3"}, whole, "time of its commit"},
		"no go.mod":                      {version("v1.2.3"), sources(t, map[string]string{"a.go": "package a\n"}), "no go.mod"},
		"names that differ only in case": {version("v1.2.3"), append(sources(t, map[string]string{"A.go": ""}), whole...), "case-insensitive"},
		"too large":                      {version("v1.2.3"), append([]goproxy.File{{Name: "big", From: big}}, whole...), "too large"},
		"missing file":                   {version("v1.2.3"), append([]goproxy.File{{Name: "none", From: big + "x"}}, whole...), "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			err := goproxy.Pack(t.Context(), dir, tc.v, tc.files)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v; want an error about %q", err, tc.want)
			}
			if _, err := os.Stat(filepath.Join(dir, tc.v.Version+".zip")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("an archive was left behind: %v", err)
			}
		})
	}
}

func TestAddAndMirror(t *testing.T) {
	t.Parallel()
	proxy, served := filepath.Join(t.TempDir(), "proxy"), filepath.Join(t.TempDir(), "served")
	for _, v := range []string{"v1.10.0", "v1.9.0", "v1.10.0-plain"} {
		if err := goproxy.Add(t.Context(), proxy, version(v), pack(t, version(v), sources(t, thing()))); err != nil {
			t.Fatal(err)
		}
		if err := goproxy.Mirror(t.Context(), proxy, served); err != nil {
			t.Fatal(err)
		}
	}
	const at = "example.org/!thing/@v" // how the protocol escapes capitals
	for _, dir := range []string{proxy, served} {
		if got := read(t, dir, at, "list"); got != "v1.9.0\nv1.10.0-plain\nv1.10.0\n" {
			t.Errorf("list: %q", got)
		}
		if left, err := filepath.Glob(filepath.Join(dir, at, ".*")); err != nil || len(left) != 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	other := thing()
	other["a.go"] = "package other\n"
	err := goproxy.Add(t.Context(), proxy, version("v1.9.0"), pack(t, version("v1.9.0"), sources(t, other)))
	if !errors.Is(err, goproxy.ErrVersionConflict) {
		t.Errorf("a version with other contents: %v", err)
	}
	if err := goproxy.Mirror(t.Context(), t.TempDir(), served); !errors.Is(err, goproxy.ErrOptions) {
		t.Errorf("nothing to mirror: %v", err)
	}
}

// No version is added if one conflicts.
func TestMirrorIsAllOrNothing(t *testing.T) {
	t.Parallel()
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	add := func(proxy, v, text string) {
		files := thing()
		files["a.go"] = text
		if err := goproxy.Add(t.Context(), proxy, version(v), pack(t, version(v), sources(t, files))); err != nil {
			t.Fatal(err)
		}
	}
	add(to, "v1.1.0", "package thing // served\n")
	add(from, "v1.0.0", "package thing\n")
	add(from, "v1.1.0", "package thing\n")
	for name, mirror := range map[string]func(context.Context, string, string) error{"Mirror": goproxy.Mirror, "CheckMirror": goproxy.CheckMirror} {
		if err := mirror(t.Context(), from, to); !errors.Is(err, goproxy.ErrVersionConflict) {
			t.Errorf("%s: %v", name, err)
		}
		if got := read(t, to, "example.org/!thing/@v/list"); got != "v1.1.0\n" {
			t.Errorf("%s: the list is %q", name, got)
		}
		if _, err := os.Stat(filepath.Join(to, "example.org/!thing/@v/v1.0.0.zip")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the other version: %v", name, err)
		}
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	if err := goproxy.CheckMirror(t.Context(), from, fresh); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("CheckMirror created the directory: %v", err)
	}
}

// Two publishers would write the same temporary files, so one waits for the other
// until its context is cancelled.
func TestMirrorWaitsForOtherPublishers(t *testing.T) {
	t.Parallel()
	proxy, served := t.TempDir(), t.TempDir()
	if err := goproxy.Add(t.Context(), proxy, version("v1.0.0"), pack(t, version("v1.0.0"), sources(t, thing()))); err != nil {
		t.Fatal(err)
	}
	other := flock.New(served, flock.SetFlag(os.O_RDONLY))
	if err := other.Lock(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := goproxy.Mirror(ctx, proxy, served); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "wait for another publish into "+served) {
		t.Errorf("while another publishes: %v", err)
	}
	if there, err := os.ReadDir(served); err != nil || len(there) > 0 {
		t.Errorf("written without the lock: %v, %v", there, err)
	}
	done := make(chan error)
	go func() { done <- goproxy.Mirror(t.Context(), proxy, served) }()
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := read(t, served, "example.org/!thing/@v/list"); got != "v1.0.0\n" {
		t.Errorf("list: %q", got)
	}
}

// Cancelling the context stops the reading within an archive.
func TestMirrorStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	proxy, served := t.TempDir(), t.TempDir()
	large := thing()
	noise := make([]byte, 1<<20) // incompressible
	if _, err := rand.NewChaCha8([32]byte{}).Read(noise); err != nil {
		t.Fatal(err)
	}
	large["data/x.bin"] = string(noise)
	if err := goproxy.Add(t.Context(), proxy, version("v1.0.0"), pack(t, version("v1.0.0"), sources(t, large))); err != nil {
		t.Fatal(err)
	}
	if err := goproxy.Mirror(t.Context(), proxy, served); err != nil {
		t.Fatal(err)
	}
	if err := goproxy.Mirror(ctxtest.Ends(t, 10), proxy, served); !errors.Is(err, context.Canceled) {
		t.Errorf("comparing archives: %v", err)
	}
}

// goCommand runs go in dir with a proxy and, as the source of the other modules,
// this machine's module cache. Without the path of the test's module cache in what is
// compiled, the build cache has it for the next test.
func goCommand(t *testing.T, dir, proxy string, args ...string) (string, error) {
	t.Helper()
	cache, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -modcacherw -trimpath -ldflags=-s", "GOWORK=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0",
		"GOMODCACHE="+filepath.Join(dir, "modcache"), "GONOSUMDB=*", "GOPRIVATE=", "GONOPROXY=",
		"GOPROXY=file://"+proxy+",file://"+filepath.Join(strings.TrimSpace(string(cache)), "cache", "download"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}
