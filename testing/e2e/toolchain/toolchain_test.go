//go:build e2e

// Package toolchain tests the ways to a toolchain image that a default build on Debian does
// not use.
package toolchain_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/containertest"
	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

func describe(t *testing.T, e engine.Engine, s toolchain.Spec) (*toolchain.Toolchain, error) {
	t.Helper()
	cache, err := stage.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	tc, err := toolchain.Describe(t.Context(), e, cache, s, &log)
	if err != nil {
		t.Log(log.String())
	}
	return tc, err
}

func names(tc *toolchain.Toolchain) []string {
	var all []string
	for _, p := range tc.Packages {
		all = append(all, p.Name)
	}
	return all
}

// A host without mmdebstrap runs it in an image that has it.
func TestMmdebstrapInAnImage(t *testing.T) {
	e := containertest.Engine(t)
	ref := containertest.Debian(t, e, "bookworm", "", "mmdebstrap", "ca-certificates", "debian-archive-keyring")
	spec := toolchain.Spec{
		Kind: "debian", Set: toolchain.CPU, Suite: "forky", MmdebstrapImage: ref, Epoch: time.Unix(1700000000, 0), // no build has this time: the image gets a tag of its own
	}
	tc, err := describe(t, e, spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range toolchain.CPU.Packages() {
		if !slices.Contains(names(tc), want) {
			t.Errorf("%s is not in the image", want)
		}
	}
	fetch(t, e, spec, tc)
	variations(t, e, tc)
}

// A toolchain that is cancelled while it is created leaves no files behind.
func TestInterruptedMmdebstrapLeavesNothing(t *testing.T) {
	e := containertest.Engine(t)
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	cache, err := stage.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	left := func() []string {
		found, err := filepath.Glob(filepath.Join(tmp, "mmdebstrap.*", "var", "lib", "apt", "lists", "*Packages*"))
		if err != nil {
			t.Error(err)
		}
		return found
	}
	spec := toolchain.Spec{Kind: "debian", Set: toolchain.CPU, Suite: "forky", Epoch: time.Unix(1700000001, 0)}
	var log bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := toolchain.Describe(ctx, e, cache, spec, &log)
		ended <- err
	}()
	poll.Until(t, "lists of packages", func() bool { return len(left()) > 0 || len(ended) > 0 })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if entries, err := os.ReadDir(tmp); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// variations runs a job with and without variations: all of them take effect, and the result
// of a compile does not depend on them.
func variations(t *testing.T, e engine.Engine, tc *toolchain.Toolchain) {
	t.Helper()
	const script = `
id -u; hostname; date +%Y; mkdir d; touch d/1 d/2 d/3
printf '#include <dirent.h>\n#include <stdio.h>\nint main(void){DIR*d=opendir("d");struct dirent*e;while((e=readdir(d)))printf("%%s ",e->d_name);return closedir(d);}' >r.c
gcc -o r r.c; ./r; echo
printf 'const char *when = __DATE__ __TIME__;' >t.c; gcc -c t.c; strings t.o | grep -c "$(date +%Y)"
sha256sum r | cut -c1-64`
	run := func(e engine.Engine) []string {
		var log bytes.Buffer
		err := e.Run(t.Context(), engine.Job{
			Name: "variations", Image: tc.ID, Cmd: []string{"/bin/sh", "-eu", "-c", script},
			Env: []string{"PATH=/usr/bin:/bin", "TZ=UTC"}, Dir: "/build", UID: 1000, GID: 1000, Volumes: []string{"/build"}, Log: &log,
		})
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if err != nil || len(lines) != 6 {
			t.Fatalf("%v\n%s", err, log.String())
		}
		return lines
	}
	here, there := run(e), run(engine.Vary(e))
	for i, what := range []string{"user id", "host name", "year", "order of a directory"} {
		if here[i] == there[i] {
			t.Errorf("the %s is %q in both", what, here[i])
		}
	}
	if here[4] != "1" || there[4] != "1" {
		t.Errorf("the compiler's date is not the clock's: %q, %q", here[4], there[4])
	}
	if here[5] != there[5] {
		t.Errorf("a compile depends on the variations: %s and %s", here[5], there[5])
	}
}

// fetch downloads an installed package of an image from the archive. It must have the digest
// that the image records. fetch also requests a version that never existed.
func fetch(t *testing.T, e engine.Engine, spec toolchain.Spec, tc *toolchain.Toolchain) {
	t.Helper()
	cache, err := stage.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	p := tc.Packages[slices.IndexFunc(tc.Packages, func(p toolchain.Package) bool { return p.Name == "zstd" })]
	res, err := toolchain.Fetch(t.Context(), e, cache, spec, tc, p, &log)
	if err != nil {
		t.Fatalf("%v\n%s", err, log.String())
	}
	if sum, err := stage.FileDigest(filepath.Join(res.Dir, toolchain.FetchedPackage)); err != nil || sum != p.SHA256 {
		t.Errorf("fetched %s, %v; the image records %s", sum, err, p.SHA256)
	}
	p.Version = "0~never"
	var gone *toolchain.NotInArchiveError
	if _, err := toolchain.Fetch(t.Context(), e, cache, spec, tc, p, &log); !errors.As(err, &gone) {
		t.Errorf("a version that there never was: %v", err)
	}
}

// The build adds missing packages to a user's own image, whose ROCm is where AMD's packages
// install it.
func TestImageLaidOutUnderOptRocm(t *testing.T) {
	e := containertest.Engine(t)
	const rocm = "go-rocm/test-rocm:latest"
	plain := containertest.Debian(t, e, "trixie", "", "ca-certificates", "gcc")
	spec := toolchain.Spec{Kind: "amd", Set: toolchain.HIP, BaseImage: plain}
	if _, err := describe(t, e, spec); err == nil || !strings.Contains(err.Error(), "hipconfig is missing") {
		t.Fatalf("an image without ROCm: %v", err)
	}
	err := e.Run(t.Context(), engine.Job{
		Name: "lay out", Image: plain, CommitAs: rocm, Dir: "/",
		Cmd: []string{"/bin/sh", "-eu", "-c", `mkdir -p /opt/rocm/bin && printf '#!/bin/sh\necho /opt/rocm/llvm/bin\n' >/opt/rocm/bin/hipconfig && chmod 755 /opt/rocm/bin/hipconfig`},
	})
	if err != nil {
		t.Fatal(err)
	}
	spec.BaseImage = rocm
	tc, err := describe(t, e, spec)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range toolchain.CPU.Packages() {
		if !slices.Contains(names(tc), want) {
			t.Errorf("%s was not added", want)
		}
	}
	if got := spec.ROCm(); got != "/opt/rocm" {
		t.Errorf("ROCm is looked for in %s", got)
	}
	f, err := e.Files(t.Context(), tc.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, path := range []string{"/opt/rocm/bin/hipconfig", "/src", "/build", "/usr/bin/ninja"} {
		if _, err := f.Stat(t.Context(), path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Without a recorded digest, AMD's image is rejected with the way to record it.
func TestAMDImageNeedsADigest(t *testing.T) {
	e := containertest.Engine(t)
	_, err := describe(t, e, toolchain.Spec{Kind: "amd", Set: toolchain.HIP})
	if err == nil || !strings.Contains(err.Error(), "mage lock") {
		t.Errorf("got %v", err)
	}
}
