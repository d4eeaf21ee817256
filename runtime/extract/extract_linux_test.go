package extract

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func TestExtractInstallsRunnableBundle(t *testing.T) {
	b := newBundle(t, true)
	o := Options{CacheDir: cacheDir(t)}
	var done, total int64
	o.Progress = func(d, n int64) { done, total = d, n }
	inst := mustExtract(t, b, o)
	if !inst.Changed || done != total || total < bundleSize {
		t.Errorf("changed %v, progress %d of %d", inst.Changed, done, total)
	}
	want := []string{filepath.Join(inst.Dir, loaderName), "--library-path", inst.Dir, filepath.Join(inst.Dir, programName)}
	if got := inst.Command(); !slices.Equal(got, want) {
		t.Errorf("command %q, want %q", got, want)
	}
	want[2] += ":/opt/rocm/lib:/usr/lib64" // after the bundle, in this order
	if got := inst.Command("/opt/rocm/lib", "/usr/lib64"); !slices.Equal(got, want) {
		t.Errorf("with the host's directories: command %q, want %q", got, want)
	}
	startServer(t, inst).stopServer()
	done = -1
	mustBeFast(t, b, o)
	if done != -1 {
		t.Error("Progress was called although nothing was written")
	}
	for _, d := range []string{o.CacheDir, filepath.Dir(inst.Dir), inst.Dir, filepath.Join(inst.Dir, "rocblas", "library")} {
		if st, err := os.Stat(d); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", d, st.Mode(), err)
		}
	}
	st, err := os.Stat(filepath.Join(inst.Dir, "libholes.so"))
	if err != nil {
		t.Fatal(err)
	}
	var sys unix.Stat_t
	if err := unix.Stat(filepath.Join(inst.Dir, "libholes.so"), &sys); err != nil {
		t.Fatal(err)
	}
	if sys.Blocks*512 > st.Size()/2 {
		t.Errorf("the sparse file of %d bytes occupies %d", st.Size(), sys.Blocks*512)
	}
	system := &Installed{Dir: "/x", Manifest: &bundle.Manifest{Entry: bundle.Entry{Program: "llama-server"}}}
	if got := system.Command(); !slices.Equal(got, []string{"/x/llama-server"}) {
		t.Errorf("command without a loader: %q", got)
	}
}

func TestExtractReturnsCauseOfCancellation(t *testing.T) {
	b := newBundle(t, false)
	why := errors.New("enough")
	for _, step := range []string{"locked", "staged"} {
		o := Options{CacheDir: cacheDir(t)}
		ctx, cancel := context.WithCancelCause(context.Background())
		o.trace = func(s string) {
			if s == step {
				cancel(why)
			}
		}
		if _, err := Extract(ctx, b.Reader, o); !errors.Is(err, why) {
			t.Errorf("cancelled at %q: %v", step, err)
		}
		mustBeTidy(t, o.CacheDir)
		cancel(nil)
	}
}

// A damaged pack is not installed, and nothing is left behind.
func TestExtractRejectsDamagedPack(t *testing.T) {
	b := newBundle(t, false)
	packed, err := os.ReadFile(b.file)
	if err != nil {
		t.Fatal(err)
	}
	packed[len(packed)/2] ^= 1
	r, err := bundle.Open(strings.NewReader(string(packed)), int64(len(packed)))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{CacheDir: cacheDir(t)}
	if _, err := Extract(context.Background(), r, o); !errors.Is(err, bundle.ErrContent) {
		t.Errorf("got %v, want ErrContent", err)
	}
	mustBeTidy(t, o.CacheDir)
	mustExtract(t, b, o)
}

func TestOpenInstalledFindsTargets(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t)}
	dir := mustExtract(t, b, o).Dir
	inst, err := OpenInstalled(dir)
	if err != nil || inst.Changed || inst.Dir != dir || gfx.Join(inst.Targets, ",") != "gfx1100,gfx1101" {
		t.Fatalf("opened %+v, %v", inst, err)
	}
	remove(t, filepath.Join(dir, "rocblas/library/a_gfx1100.co"))
	var ve *bundle.VerifyError
	if _, err := OpenInstalled(dir); !errors.As(err, &ve) || len(ve.Differences) != 1 {
		t.Errorf("half a target: %v", err)
	}
	remove(t, filepath.Join(dir, "rocblas/library/b_gfx1100.dat"))
	if inst, err := OpenInstalled(dir); err != nil || gfx.Join(inst.Targets, ",") != "gfx1101" {
		t.Errorf("without one target: %+v, %v", inst, err)
	}
	truncate(t, filepath.Join(dir, "libcore.so"), 5)
	if _, err := OpenInstalled(dir); !errors.As(err, &ve) {
		t.Errorf("short file: %v", err)
	}
	if _, err := OpenInstalled(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
}

func TestErrorsHaveRemedies(t *testing.T) {
	s, err := openStore(location{cacheDir(t), "test"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	for errno, want := range map[unix.Errno]error{
		unix.EMFILE: ErrTooManyFiles, unix.ENFILE: ErrTooManyFiles, unix.EIO: ErrDisk, unix.EROFS: ErrReadOnly, unix.ENOENT: os.ErrNotExist,
	} {
		if err := addRemedy(&os.PathError{Op: "open", Path: "x", Err: errno}); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v becomes %v", errno, err)
		}
	}
	for errno, what := range map[unix.Errno]string{unix.EDQUOT: "quota", unix.ENOSPC: "bytes"} {
		for _, dir := range []string{s.dir, filepath.Join(s.dir, "not", "there")} {
			var se *SpaceError
			err := spaceError(dir, &os.PathError{Op: "write", Path: "x", Err: errno}, 5<<20, 1)
			if !errors.As(err, &se) || se.Resource != what || !errors.Is(err, errno) || !strings.Contains(err.Error(), "5.0 MiB") || !canTryNext(err) {
				t.Errorf("%v becomes %v", errno, err)
			}
			if second := spaceError("/", err, 1, 1); second != err { //nolint:errorlint // the very same
				t.Errorf("%v becomes %v the second time", err, second)
			}
		}
	}
	if err := spaceError(s.dir, unix.EIO, 1, 1); err != error(unix.EIO) { //nolint:errorlint // the very same
		t.Errorf("EIO becomes %v", err)
	}
}
