package extract

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// The test binary has three roles: the tests, the other processes that the tests
// need (childEnv is set), and the programs of the test bundle (its name is that of
// an entry).
const (
	childEnv = "GOROCM_EXTRACT_CHILD" // behaviour of a child
	packEnv  = "GOROCM_EXTRACT_PACK"  // path of the pack to install
	stepEnv  = "GOROCM_EXTRACT_STEP"  // step at which to stop or exit
	packsEnv = "GOROCM_EXTRACT_PACKS" // directory of the packs of newBundle
)

func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case loaderName, programName:
		os.Exit(serverMain())
	}
	switch name := os.Getenv(childEnv); name {
	case "":
	case mapperName:
		os.Exit(mapperMain())
	default:
		os.Exit(childMain(name))
	}
	os.Exit(torture.Main(func() int { return withPacks(m.Run) }))
}

const (
	loaderName  = "ld-test.so.2"
	programName = "llama-server"
)

// data returns n bytes that are slightly compressible.
func data(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(32))
	}
	return b
}

// testBundle is a packed bundle and its file.
type testBundle struct {
	*bundle.Reader
	file string // the pack
}

// bundleSize is the size of the data in the bundle of newBundle, without programs.
const bundleSize = 3 * 384 << 10

// newBundle returns a bundle of some MiB, more than the smallest disk of a test has. Its
// programs are small scripts, or with runs programs that can be started. All tests share
// its pack, which they must not change.
func newBundle(t testing.TB, runs bool) testBundle {
	t.Helper()
	pack := packScripts
	if runs {
		pack = packPrograms
	}
	b, err := pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// withPacks calls run while the directory of the packs exists. A process that runs some
// tests again, in a namespace or as another user, uses the packs of the first one.
func withPacks(run func() int) int {
	if os.Getenv(packsEnv) != "" {
		return run()
	}
	dir, err := os.MkdirTemp("", "packs-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Setenv(packsEnv, dir))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "create the directory of the packs:", err)
		return 1
	}
	status := run()
	if err := os.RemoveAll(dir); err != nil {
		fmt.Fprintln(os.Stderr, "remove the packs:", err)
		return 1
	}
	return status
}

// The packs of newBundle, made when a test needs them first.
var (
	packScripts  = sync.OnceValues(func() (testBundle, error) { return sharedBundle("scripts", false) })
	packPrograms = sync.OnceValues(func() (testBundle, error) { return sharedBundle("programs", true) })
)

// sharedBundle opens a pack in the directory of the packs, and makes it first where no
// process has.
func sharedBundle(name string, runs bool) (testBundle, error) {
	dir := filepath.Join(os.Getenv(packsEnv), name)
	packed, err := os.ReadFile(filepath.Join(dir, packName))
	if errors.Is(err, fs.ErrNotExist) {
		return makeBundle(dir, runs)
	}
	if err != nil {
		return testBundle{}, err
	}
	return openPack(filepath.Join(dir, packName), packed)
}

// makeBundle makes a pack in a new directory, whose name tells other processes that it
// is whole.
func makeBundle(dir string, runs bool) (testBundle, error) {
	files := map[string][]byte{
		"libcore.so":                       data(1, 384<<10),
		"libcore.so.1":                     data(1, 384<<10),
		"libholes.so":                      append(make([]byte, 1<<20), data(2, 100_000)...),
		"rocblas/library/a_gfx1100.co":     data(3, 384<<10),
		"rocblas/library/b_gfx1100.dat":    data(4, 1000),
		"rocblas/library/a_gfx1101.co":     data(5, 384<<10),
		"rocblas/library/fallback.dat":     data(6, 5000),
		"licenses/rocblas/copyright":       []byte("text\n"),
		loaderName:                         []byte("#!/bin/true\n"),
		programName:                        []byte("#!/bin/true\n# server\n"),
		"rocblas/library/empty_gfx1101.co": {},
	}
	if runs {
		self, err := os.Executable()
		if err != nil {
			return testBundle{}, err
		}
		b, err := os.ReadFile(self)
		if err != nil {
			return testBundle{}, err
		}
		files[loaderName] = b
	}
	part := dir + ".part"
	if err := os.Mkdir(part, 0o755); err != nil {
		return testBundle{}, err
	}
	b, err := writePack(part, files, nil)
	if err == nil {
		err = os.Rename(part, dir)
	}
	b.file = filepath.Join(dir, packName)
	return b, err
}

// packName is the name of the file that writePack writes.
const packName = "pack.tar.zst"

// packFiles packs the files as a bundle. known are manifest entries to keep.
func packFiles(t testing.TB, files map[string][]byte, known []bundle.File) testBundle {
	t.Helper()
	b, err := writePack(t.TempDir(), files, known)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// writePack is packFiles in a directory.
func writePack(dir string, files map[string][]byte, known []bundle.File) (testBundle, error) {
	var none testBundle
	tree := filepath.Join(dir, "bundle")
	for name, b := range files {
		p := filepath.Join(tree, name)
		mode := fs.FileMode(0o644)
		if name == loaderName || name == programName {
			mode = 0o755
		}
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, b, mode), os.Chmod(p, mode)); err != nil {
			return none, err
		}
	}
	m, err := bundle.Build(tree, bundle.Manifest{
		Name: "llama-test", Variant: "hip", Flavour: bundle.FlavourHermetic, Version: "v0", Targets: []gfx.Target{"gfx1100", "gfx1101"},
		Entry: bundle.Entry{Loader: loaderName, Program: programName}, Files: known,
	})
	if err != nil {
		return none, err
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(context.Background(), &packed, tree, m, bundle.PackOptions{FrameSize: 256 << 10, Encoder: fastEncoder}); err != nil {
		return none, err
	}
	file := filepath.Join(dir, packName)
	if err := os.WriteFile(file, packed.Bytes(), 0o644); err != nil {
		return none, err
	}
	return openPack(file, packed.Bytes())
}

// openPack opens a pack whose bytes are in memory, so that no test keeps a file open.
func openPack(file string, packed []byte) (testBundle, error) {
	r, err := bundle.Open(bytes.NewReader(packed), int64(len(packed)))
	return testBundle{r, file}, err
}

// mustExtract installs the bundle and verifies every byte.
func mustExtract(t *testing.T, b testBundle, o Options) *Installed {
	t.Helper()
	inst, err := Extract(context.Background(), b.Reader, o)
	if err != nil {
		t.Fatalf("extract: %v", err)
	}
	mustVerify(t, inst)
	return inst
}

func mustVerify(t *testing.T, inst *Installed) {
	t.Helper()
	if err := bundle.VerifyTargets(context.Background(), inst.Dir, inst.Manifest, inst.Targets); err != nil {
		t.Fatalf("installed bundle: %v", err)
	}
}

// mustBeFast checks that the next call accepts the stamp: it reads no content, acquires
// no lock and writes nothing.
func mustBeFast(t *testing.T, b testBundle, o Options) {
	t.Helper()
	if steps := mustKeep(t, b, o); len(steps) > 0 {
		t.Errorf("Extract needed the steps %q", steps)
	}
}

// mustRehash checks that the next call finds no valid stamp, and still writes no file
// of the bundle.
func mustRehash(t *testing.T, b testBundle, o Options) {
	t.Helper()
	if steps := mustKeep(t, b, o); !slices.Contains(steps, "stale") {
		t.Errorf("the stamp was accepted: the steps are %q", steps)
	}
}

// mustKeep checks that the next call writes no file of the bundle, and returns its
// steps.
func mustKeep(t *testing.T, b testBundle, o Options) (steps []string) {
	t.Helper()
	o.trace = func(s string) { steps = append(steps, s) }
	inst, err := Extract(context.Background(), b.Reader, o)
	if err != nil {
		t.Fatalf("start with an installed bundle: %v", err)
	}
	if inst.Changed {
		t.Error("a start with an undamaged bundle wrote files")
	}
	return steps
}

// mustBeTidy checks that the store contains only bundles, stamps and locks.
func mustBeTidy(t *testing.T, cache string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(cache, bundlesName))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(e.Name(), ".lock"), ".stamp"), ".use")
		if b, err := hex.DecodeString(name); err != nil || len(b) != sha256.Size {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

// cacheDir returns the path of a new cache directory.
func cacheDir(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "cache")
}

// serverMain is the bundle's program. It prints a line and waits until its input ends.
func serverMain() int {
	fmt.Println("running")
	var b [1]byte
	for {
		if _, err := os.Stdin.Read(b[:]); err != nil {
			return 0
		}
	}
}
