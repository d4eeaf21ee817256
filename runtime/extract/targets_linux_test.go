package extract

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// fatName is a library of newFatBundle with 2 MiB of code for each target.
const fatName = "libggml-hip.so"

// fatLibrary returns a fat binary for two targets and its manifest entry.
func fatLibrary(t testing.TB) ([]byte, bundle.File) {
	t.Helper()
	unit := func(fill int) []byte {
		return elfgen.Bundle(
			elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1100", Code: elfgen.CodeObject(0x41, []string{"k"}, fill)},
			elfgen.Entry{ID: "hipv4-amdgcn-amd-amdhsa--gfx1101", Code: elfgen.CodeObject(0x46, []string{"k"}, fill)},
		)
	}
	fat := elfgen.Spec{SONAME: fatName, Sections: []elfgen.Section{elfgen.FatBinary(unit(1<<20), unit(1<<20))}}.Bytes()
	file := filepath.Join(t.TempDir(), fatName)
	if err := os.WriteFile(file, fat, 0o600); err != nil {
		t.Fatal(err)
	}
	shares, err := offload.ReadTargetExtents(file)
	if err != nil {
		t.Fatal(err)
	}
	known := bundle.File{Path: fatName}
	for _, s := range shares {
		p := bundle.Part{Target: s.Target}
		for _, x := range s.Extents {
			p.Extents = append(p.Extents, bundle.Extent(x))
		}
		known.Parts = append(known.Parts, p)
	}
	return fat, known
}

// newFatBundle packs a bundle with a fat binary and with files for single targets.
func newFatBundle(t testing.TB) testBundle {
	t.Helper()
	fat, parts := fatLibrary(t)
	known := []bundle.File{parts}
	files := map[string][]byte{
		fatName:                        fat,
		"libcore.so":                   data(1, 100_000),
		"rocblas/library/a_gfx1100.co": data(3, 50_000),
		"rocblas/library/a_gfx1101.co": data(5, 50_000),
		loaderName:                     []byte("#!/bin/true\n"),
		programName:                    []byte("#!/bin/true\n# server\n"),
	}
	for name, target := range map[string]gfx.Target{"rocblas/library/a_gfx1100.co": "gfx1100", "rocblas/library/a_gfx1101.co": "gfx1101"} {
		known = append(known, bundle.File{Path: name, Target: target})
	}
	return packFiles(t, files, known)
}

// mustBeFor checks by content for which targets the bundle is installed.
func mustBeFor(t *testing.T, inst *Installed, want string) {
	t.Helper()
	found, err := bundle.VerifyInstalled(context.Background(), inst.Dir, inst.Manifest)
	if err != nil || gfx.Join(found, ",") != want {
		t.Errorf("the directory is for %q (%v), want %q", gfx.Join(found, ","), err, want)
	}
	const most = 3 << 20 // the code of one target has 2 MiB
	if used := diskUse(t, filepath.Join(inst.Dir, fatName)); (used < most) != (want != "gfx1100,gfx1101") {
		t.Errorf("for %q the fat binary occupies %d bytes", want, used)
	}
}

func diskUse(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// The steps request no target, one target and both, in different orders.
func TestExtractAddsTargets(t *testing.T) {
	b := newFatBundle(t)
	for name, c := range map[string][]struct {
		ask     []gfx.Target
		has     string // by content
		changed bool
	}{
		"one":             {{[]gfx.Target{"gfx1100"}, "gfx1100", true}, {[]gfx.Target{"gfx1100"}, "gfx1100", false}, {[]gfx.Target{}, "gfx1100", false}},
		"one, other":      {{[]gfx.Target{"gfx1101"}, "gfx1101", true}, {[]gfx.Target{"gfx1100"}, "gfx1100,gfx1101", true}, {[]gfx.Target{"gfx1101"}, "gfx1100,gfx1101", false}},
		"one, all":        {{[]gfx.Target{"gfx1100"}, "gfx1100", true}, {nil, "gfx1100,gfx1101", true}, {nil, "gfx1100,gfx1101", false}},
		"all, one":        {{nil, "gfx1100,gfx1101", true}, {[]gfx.Target{"gfx1101"}, "gfx1100,gfx1101", false}},
		"none, one":       {{[]gfx.Target{}, "", true}, {[]gfx.Target{}, "", false}, {[]gfx.Target{"gfx1101"}, "gfx1101", true}},
		"none, same, all": {{[]gfx.Target{}, "", true}, {[]gfx.Target{"gfx1100"}, "gfx1100", true}, {[]gfx.Target{"gfx1100", "gfx1101"}, "gfx1100,gfx1101", true}},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{CacheDir: cacheDir(t)}
			for i, step := range c {
				o.Targets = step.ask
				inst := mustExtract(t, b, o)
				if inst.Changed != step.changed {
					t.Errorf("step %d: changed is %v", i, inst.Changed)
				}
				mustBeFor(t, inst, step.has)
				mustBeFast(t, b, o)
				if got, err := OpenInstalled(inst.Dir); err != nil || !equalTargets(got.Targets, inst.Targets) {
					t.Errorf("opened: %+v, %v", got, err)
				}
			}
			mustBeTidy(t, o.CacheDir)
		})
	}
}

// mapperName is the behaviour of a child that maps the file of stepEnv, as a server does.
// For each byte of input it prints the digest of the mapping. It exits when its input
// ends.
const mapperName = "map file"

func mapperMain() int {
	f, err := os.Open(os.Getenv(stepEnv))
	if err != nil {
		fmt.Println(err)
		return 4
	}
	st, err := f.Stat()
	if err != nil {
		fmt.Println(err)
		return 4
	}
	seen, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		fmt.Println(err)
		return 4
	}
	fmt.Println("running")
	var b [1]byte
	for {
		if _, err := os.Stdin.Read(b[:]); err != nil {
			return 0
		}
		fmt.Printf("%x\n", sha256.Sum256(seen))
	}
}

// A target is added while another process has the file for one target mapped. The
// mapping must not change.
func TestAddingTargetKeepsMappedFile(t *testing.T) {
	b := newFatBundle(t)
	torture.Rounds(t, func(t *testing.T) {
		o := Options{CacheDir: cacheDir(t), Targets: []gfx.Target{"gfx1100"}}
		inst := mustExtract(t, b, o)
		path := filepath.Join(inst.Dir, fatName)
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		file, _ := inst.Manifest.File(fatName)
		server := startChild(t, mapperName, b, o.CacheDir, withEnv(stepEnv+"="+path))
		if got := server.line(); got != "running" {
			t.Fatalf("the server printed %q", got)
		}
		sees := func(want string) {
			t.Helper()
			if _, err := server.in.Write([]byte{'?'}); err != nil {
				t.Fatal(err)
			}
			if got := server.line(); got != want {
				t.Errorf("the server sees %s, want %s", got, want)
			}
		}
		sees(file.Parts[0].SHA256)
		if !startChild(t, "plain", b, o.CacheDir).succeeded() { // all targets
			t.Error("nothing was written for the second target")
		}
		sees(file.Parts[0].SHA256)
		o.Targets = nil
		mustBeFast(t, b, o)
		mustBeFor(t, inst, "gfx1100,gfx1101")
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if os.SameFile(before, after) {
			t.Error("the file was changed in place")
		}
		server.stopServer()
		mustBeTidy(t, o.CacheDir)
	})
}

// After a process is killed while it adds a second target, the bundle must be right for
// the first one, whatever is requested next.
func TestFault02_KilledWhileAddingTarget(t *testing.T) {
	b := newFatBundle(t)
	one := []gfx.Target{"gfx1100"}
	torture.Rounds(t, func(t *testing.T) {
		for _, step := range []string{"locked", "staged", "extracted", "synced", "replaced", "stamped"} {
			for _, next := range [][]gfx.Target{one, nil} {
				o := Options{CacheDir: cacheDir(t), Targets: one}
				dir := mustExtract(t, b, o).Dir
				startChild(t, "exit at step", b, o.CacheDir, withEnv(stepEnv+"="+step)).killed()
				if err := bundle.VerifyTargets(context.Background(), dir, b.Manifest(), one); err != nil {
					t.Errorf("killed at %q: %v", step, err)
				}
				o.Targets = next
				inst := mustExtract(t, b, o)
				want := "gfx1100,gfx1101"
				if next != nil && step != "replaced" && step != "stamped" {
					want = "gfx1100"
				}
				mustBeFor(t, inst, want)
				mustBeFast(t, b, o)
				o.Targets = nil // removes the stage, which the fast check does not
				mustBeFor(t, mustExtract(t, b, o), "gfx1100,gfx1101")
				mustBeTidy(t, o.CacheDir)
			}
		}
	})
}

// If both targets do not fit, one does, and a failed addition leaves it unchanged.
func TestFault05_OneTargetFits(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newFatBundle(t)
		torture.Rounds(t, func(t *testing.T) {
			all := Options{CacheDir: filepath.Join(mountTmpfs(t, 0, "size=4m"), "cache")}
			mustLackSpace(t, b, all, "bytes")
			one := all
			one.Targets = []gfx.Target{"gfx1100"}
			inst := mustExtract(t, b, one)
			mustLackSpace(t, b, all, "bytes")
			mustBeFast(t, b, one)
			mustBeFor(t, inst, "gfx1100")
		})
	})
}

// A read-only directory for one target is used for that target, and rejected for the
// other.
func TestFault12_ReadOnlyCacheOfOneTarget(t *testing.T) {
	withMounts(t, func(t *testing.T) {
		b := newFatBundle(t)
		torture.Rounds(t, func(t *testing.T) {
			mnt := mountTmpfs(t, 0, "size=64m")
			o := Options{CacheDir: filepath.Join(mnt, "cache"), Targets: []gfx.Target{"gfx1100"}}
			inst := mustExtract(t, b, o)
			remove(t, inst.Dir+".stamp")
			if err := unix.Mount("", mnt, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
				t.Fatal(err)
			}
			if second := mustExtract(t, b, o); second.Changed {
				t.Error("it was written to")
			}
			o.Targets = nil
			if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrReadOnly) {
				t.Errorf("both targets from a directory for one: %v", err)
			}
		})
	})
}

func TestTargetsOnDemand(t *testing.T) {
	b := newBundle(t, false)
	o := Options{CacheDir: cacheDir(t), Targets: []gfx.Target{}}
	for i, targets := range [][]gfx.Target{{}, {"gfx1101"}, {"gfx1100"}, nil} {
		o.Targets = targets
		inst := mustExtract(t, b, o)
		if len(inst.Targets) != min(i, 2) {
			t.Errorf("requested %v: the directory has %v", targets, inst.Targets)
		}
		if inst.Changed != (i < 3) {
			t.Errorf("requested %v: changed is %v", targets, inst.Changed)
		}
		mustBeFast(t, b, o)
		if got, err := OpenInstalled(inst.Dir); err != nil || !equalTargets(got.Targets, inst.Targets) {
			t.Errorf("opened: %+v, %v", got, err)
		}
	}
	o.Targets = []gfx.Target{"gfx90a"}
	if _, err := Extract(context.Background(), b.Reader, o); !errors.Is(err, ErrTarget) {
		t.Errorf("a target that the bundle lacks: %v", err)
	}
	// Damage in one target is repaired when another one is requested: all installed
	// files must be right.
	o.Targets = []gfx.Target{"gfx1100"}
	dir := mustExtract(t, b, o).Dir
	flip(t, filepath.Join(dir, "rocblas/library/a_gfx1101.co"), 9)
	mustExtract(t, b, o)
	mustBeTidy(t, o.CacheDir)
}

func equalTargets(a, b []gfx.Target) bool { return gfx.Join(a, ",") == gfx.Join(b, ",") }
