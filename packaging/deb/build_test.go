package deb_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// The same inputs produce the same bytes in any environment.
func TestBuildIsReproducible(t *testing.T) {
	c, dir := command(t), writeBundle(t)
	build := func() (packages [2][]byte) {
		o := options(t)
		for i, path := range []string{buildCommand(t, o, c), buildBundle(t, o, dir)} {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode() != 0o644 {
				t.Errorf("package has mode %o", info.Mode())
			}
			if packages[i], err = os.ReadFile(path); err != nil {
				t.Fatal(err)
			}
		}
		return packages
	}
	first := build()

	t.Setenv("TZ", "Pacific/Chatham")
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	t.Chdir(t.TempDir())
	old := syscall.Umask(0o077)
	procs := runtime.GOMAXPROCS(1)
	now := time.Now().Add(time.Hour)
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, now, now))
	})
	second := build()
	syscall.Umask(old)
	runtime.GOMAXPROCS(procs)
	if err != nil {
		t.Fatal(err)
	}
	for i := range first {
		if !bytes.Equal(first[i], second[i]) {
			t.Errorf("package %d: %d and %d bytes differ", i, len(first[i]), len(second[i]))
		}
	}
}

func TestBuildCommandRejects(t *testing.T) {
	t.Parallel()
	whole := command(t)
	for name, tc := range map[string]struct {
		change func(*testing.T, *deb.Options, *deb.Command)
		is     error
		want   string
	}{
		"no version":   {func(_ *testing.T, o *deb.Options, _ *deb.Command) { o.Version = "" }, deb.ErrOptions, "Version is empty"},
		"bad version":  {func(_ *testing.T, o *deb.Options, _ *deb.Command) { o.Version = "1.2" }, deb.ErrOptions, "MAJOR.MINOR.PATCH"},
		"bad revision": {func(_ *testing.T, o *deb.Options, _ *deb.Command) { o.Revision = "1-2" }, deb.ErrOptions, "revision"},
		"no epoch":     {func(_ *testing.T, o *deb.Options, _ *deb.Command) { o.Epoch = time.Time{} }, deb.ErrOptions, "Epoch"},
		"no program": {func(t *testing.T, _ *deb.Options, c *deb.Command) {
			c.Program = filepath.Join(t.TempDir(), "script")
			write(t, c.Program, "#!/bin/sh\n")
		}, deb.ErrCommand, "not an ELF program"},
		"dynamic program": {func(t *testing.T, _ *deb.Options, c *deb.Command) {
			sh, err := exec.LookPath("sh")
			if err != nil {
				t.Fatal(err)
			}
			c.Program = sh
		}, deb.ErrCommand, "CGO_ENABLED=0"},
		"no llama.cpp release":  {func(_ *testing.T, _ *deb.Options, c *deb.Command) { c.LlamaVersion = "" }, deb.ErrOptions, "LlamaVersion is empty"},
		"bad llama.cpp release": {func(_ *testing.T, _ *deb.Options, c *deb.Command) { c.LlamaVersion = "b42" }, deb.ErrOptions, "llama.cpp release"},
		"no manual":             {func(t *testing.T, _ *deb.Options, c *deb.Command) { c.Manual = t.TempDir() }, deb.ErrOptions, "packaging/manual"},
		"no module sources":     {func(t *testing.T, _ *deb.Options, c *deb.Command) { c.ModuleCache = t.TempDir() }, deb.ErrCommand, "go mod download"},
	} {
		t.Run(name, func(t *testing.T) {
			o, c := options(t), whole
			tc.change(t, &o, &c)
			out, err := deb.BuildCommand(t.Context(), o, c)
			checkRejected(t, o, out, err, tc.is, tc.want)
		})
	}
}

func TestBuildBundleRejects(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		dir  func(*testing.T) string
		is   error
		want string
	}{
		"no directory": {func(*testing.T) string { return "" }, deb.ErrOptions, "no bundle"},
		"no bundle":    {func(t *testing.T) string { return t.TempDir() }, deb.ErrBundle, "unpacked bundle"},
		"changed bundle": {func(t *testing.T) string {
			dir := writeBundle(t)
			write(t, filepath.Join(dir, "llama-server"), "sErver")
			return dir
		}, deb.ErrBundle, "build it again"},
		"additional file in the bundle": {func(t *testing.T) string {
			dir := writeBundle(t)
			write(t, filepath.Join(dir, "more"), "x")
			return dir
		}, deb.ErrBundle, "build it again"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			out, err := deb.BuildBundle(t.Context(), o, tc.dir(t))
			checkRejected(t, o, out, err, tc.is, tc.want)
		})
	}
}

// checkRejected checks the error, and that nothing is left behind.
func checkRejected(t *testing.T, o deb.Options, out string, err, is error, want string) {
	t.Helper()
	if !errors.Is(err, is) || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, %v; want an error about %q", out, err, want)
	}
	left, err := os.ReadDir(o.OutDir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBuildBundleWhenCancelled(t *testing.T) {
	t.Parallel()
	o, dir := options(t), writeBundle(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := deb.BuildBundle(ctx, o, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(o.OutDir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestVersionsSortInDpkg(t *testing.T) {
	t.Parallel()
	ordered := []struct{ version, revision, want string }{
		{"0.2.0-alpha.2", "", "0.2.0~alpha.2-1"},
		{"0.2.0-rc.1+llama.0.5.0", "", "0.2.0~rc.1+llama.0.5.0-1"},
		{"v0.2.0", "", "0.2.0-1"},
		{"0.2.0", "2", "0.2.0-2"},
		{"0.2.0+llama.0.5.0", "1", "0.2.0+llama.0.5.0-1"},
		{"0.10.0", "1~bpo12+1", "0.10.0-1~bpo12+1"},
	}
	before := ""
	for _, tc := range ordered {
		v, err := deb.ParseVersion(tc.version, tc.revision)
		if err != nil {
			t.Fatal(err)
		}
		if v.String() != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.version, tc.revision, v, tc.want)
		}
		if before != "" {
			if err := exec.CommandContext(t.Context(), "dpkg", "--compare-versions", before, "lt", v.String()).Run(); err != nil {
				t.Errorf("dpkg does not sort %s before %s", before, v)
			}
		}
		before = v.String()
		back, revision, ok := deb.SemVerFromDebian(v.String())
		second, err := deb.ParseVersion(back, revision)
		if !ok || err != nil || second != v {
			t.Errorf("%s converts to %q %q %t: %s, %v", v, back, revision, ok, second, err)
		}
	}
	for _, foreign := range []string{"", "1.0", "1:1.0.0-1", "2026.1-1", "1.0.0~~a-1", "1.0.0-a_b"} {
		if version, revision, ok := deb.SemVerFromDebian(foreign); ok {
			t.Errorf("%q converts to %q %q", foreign, version, revision)
		}
	}
}

func TestCompareVersionsAgreesWithDpkg(t *testing.T) {
	t.Parallel()
	versions := []string{
		"0", "0.1.0-1", "0.1.0-2", "0.1.0-10", "0.1.0~rc.1-1", "0.1.0~~-1", "0.1.0+llama.0.5.0-1", "0.1.0+llama.0.5.0-1~bpo12+1",
		"0.01.0-1", "0.1-1", "0.1.0", "0.1.0-0", "1:0.0.1-1", "0.1.0a-1", "0.1.0Z-1", "0.1.0.-1", "0.1.0+-1", "0.1.0-1-1", "20261123.143005-1",
	}
	for _, a := range versions {
		for _, b := range versions {
			relation := []string{"lt", "eq", "gt"}[deb.CompareVersions(a, b)+1]
			if out, err := exec.CommandContext(t.Context(), "dpkg", "--compare-versions", a, relation, b).CombinedOutput(); err != nil {
				t.Errorf("dpkg disagrees: %s %s %s: %v %s", a, relation, b, err, out)
			}
		}
	}
}
