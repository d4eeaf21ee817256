package toolchain

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

const stanzas = `Package: zlib1g
Source: zlib
Version: 1:1.3.1
Architecture: amd64
Description: compression library - runtime
 zlib is a library.
 .
 Package: not a field, but text
SHA256: 1111

Package: gcc
Version: 4:16.1.0-3
Architecture: amd64
Status: install ok installed

Package: gcc
Version: 4:16.1.0-3
Architecture: amd64
SHA256: 2222
`

func TestParsePackages(t *testing.T) {
	got, err := ParsePackages(strings.NewReader(stanzas))
	want := []Package{{"gcc", "4:16.1.0-3", "amd64", "2222"}, {"zlib1g", "1:1.3.1", "amd64", "1111"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"Package: a\n\n", "Package: a\nVersion: 1\n\n", "no colon\n"} {
		if got, err := ParsePackages(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
}

func FuzzParsePackages(f *testing.F) {
	f.Add(stanzas)
	f.Add("Package: a\nVersion: 1\nArchitecture: all\n")
	f.Add(": \n\n")
	f.Fuzz(func(t *testing.T, s string) {
		pkgs, err := ParsePackages(strings.NewReader(s))
		if err != nil {
			return
		}
		for _, p := range pkgs {
			if p.Name == "" || p.Version == "" || p.Arch == "" {
				t.Errorf("half a package came out: %+v", p)
			}
		}
	})
}

func TestCompare(t *testing.T) {
	locked := []Package{{"a", "1", "amd64", "x"}, {"b", "1", "amd64", "x"}, {"c", "1", "amd64", "x"}}
	found := []Package{{"a", "1", "amd64", "x"}, {"b", "2", "amd64", "y"}, {"d", "1", "amd64", "x"}}
	want := []string{"b is 2, locked is 1", "c 1 is locked but not installed", "d 1 is not in the lock"}
	if got := Compare(locked, found); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if got := Compare(locked, locked); got != nil {
		t.Errorf("equal lists differ: %q", got)
	}
	if got := Compare(locked[:1], []Package{{"a", "1", "amd64", "z"}}); len(got) != 1 || !strings.Contains(got[0], "sha256") {
		t.Errorf("another digest: %q", got)
	}
}

func TestLockRoundTrip(t *testing.T) {
	pkgs := []Package{{"a", "1:2-3", "amd64", "abc"}, {"b", "1", "all", ""}}
	var b bytes.Buffer
	if err := FormatLock(&b, pkgs); err != nil {
		t.Fatal(err)
	}
	_, got, err := parseLock(&b)
	if err != nil || !slices.Equal(got, pkgs) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, _, err := parseLock(strings.NewReader("a 1\n")); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a broken line: %v", err)
	}
}

// A locked build compares with the lock files of the source tree.
func TestLocksInTheTree(t *testing.T) {
	for _, s := range []Set{CPU, HIP} {
		pkgs, err := Locked(s)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range s.Packages() {
			i := slices.IndexFunc(pkgs, func(p Package) bool { return p.Name == name })
			if i < 0 {
				t.Errorf("%s: %s is not locked; run `mage lock`", s, name)
				continue
			}
			if len(pkgs[i].SHA256) != 64 {
				t.Errorf("%s: %s has no SHA-256", s, name)
			}
		}
	}
}

func TestImageKeysFollowWhatTheyAreMadeOf(t *testing.T) {
	base := Spec{Kind: "debian", Set: CPU, Suite: "forky", Epoch: time.Unix(1, 0)}
	for name, change := range map[string]func(*Spec){
		"set":   func(s *Spec) { s.Set = HIP },
		"suite": func(s *Spec) { s.Suite = "sid" },
		"base":  func(s *Spec) { s.BaseImage = "example@sha256:1" },
		"kind":  func(s *Spec) { s.Kind = "amd" },
	} {
		other := base
		change(&other)
		a, b := base.inputs(), other.inputs()
		if a.Base == b.Base && a.Suite == b.Suite && a.Kind == b.Kind && slices.Equal(a.Packages, b.Packages) {
			t.Errorf("another %s gives the same image key", name)
		}
	}
}

// Packages that several images have in the same version are recorded once. Another version is a
// deviation, since libraries of both images end up in one bundle.
func TestMerge(t *testing.T) {
	hip := &Toolchain{Set: HIP, Packages: []Package{{"gcc", "1", "amd64", "x"}, {"libc6", "2", "amd64", "x"}, {"hipcc", "1", "amd64", "x"}}, Deviations: []string{"gcc is 1, locked is 0"}}
	vulkan := &Toolchain{Set: Set{Name: "vulkan"}, Packages: []Package{{"gcc", "1", "amd64", "x"}, {"libc6", "3", "amd64", "y"}, {"libvulkan1", "1", "amd64", "x"}}, Deviations: []string{"gcc is 1, locked is 0"}}
	packages, deviations := Merge([]*Toolchain{hip, vulkan})
	if want := []Package{{"gcc", "1", "amd64", "x"}, {"hipcc", "1", "amd64", "x"}, {"libc6", "2", "amd64", "x"}, {"libvulkan1", "1", "amd64", "x"}}; !slices.Equal(packages, want) {
		t.Errorf("packages %v", packages)
	}
	if want := []string{"gcc is 1, locked is 0", "libc6 is 3 in the vulkan image and 2 in the hip image"}; !slices.Equal(deviations, want) {
		t.Errorf("deviations %q", deviations)
	}
	packages, deviations = Merge([]*Toolchain{hip})
	if !slices.Equal(packages, hip.Packages) || !slices.Equal(deviations, hip.Deviations) {
		t.Errorf("one toolchain became %v, %q", packages, deviations)
	}
}

// The areas of the archive are those that the set needs; an image never has a base image's own ROCm.
func TestSetsAreData(t *testing.T) {
	set := Set{Name: "cuda", Extra: "nvidia-cuda-toolkit", Areas: "contrib non-free"}
	args := Spec{Kind: "debian", Set: set, Suite: "forky"}.mmdebstrapArgs()
	if !slices.Contains(args, "--components=main,contrib,non-free") || !slices.ContainsFunc(args, func(a string) bool {
		return strings.HasPrefix(a, "--include=") && strings.HasSuffix(a, ",nvidia-cuda-toolkit")
	}) {
		t.Errorf("mmdebstrap gets %q", args)
	}
	if args := (Spec{Kind: "debian", Set: CPU, Suite: "forky"}).mmdebstrapArgs(); !slices.Contains(args, "--components=main") {
		t.Errorf("mmdebstrap gets %q", args)
	}
	if !slices.Contains(set.addedPackages(), "nvidia-cuda-toolkit") || slices.Contains(HIP.addedPackages(), "hipcc") {
		t.Errorf("a base image gets %q and %q", set.addedPackages(), HIP.addedPackages())
	}
	if got := (Set{Name: "alone", Only: "nodejs gcc"}).Packages(); !slices.Equal(got, []string{"nodejs", "gcc"}) {
		t.Errorf("a set without the base packages has %q", got)
	}
	if locked, err := Locked(set); err != nil || len(locked) != 0 {
		t.Errorf("a set without a lock: %d packages, %v", len(locked), err)
	}
}
