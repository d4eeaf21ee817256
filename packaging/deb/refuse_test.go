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

// The same inputs give the same bytes, whatever the machine's settings.
func TestBuildIsReproducible(t *testing.T) {
	o := options(t)
	build := func() []byte {
		o.OutDir = t.TempDir()
		out, err := deb.Build(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(out[0])
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o644 {
			t.Errorf("package has mode %o", info.Mode())
		}
		b, err := os.ReadFile(out[0])
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first := build()

	t.Setenv("TZ", "Pacific/Chatham")
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	t.Chdir(t.TempDir())
	old := syscall.Umask(0o077)
	procs := runtime.GOMAXPROCS(1)
	now := time.Now().Add(time.Hour)
	err := filepath.WalkDir(o.BundleDir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Chtimes(path, now, now))
	})
	second := build()
	syscall.Umask(old)
	runtime.GOMAXPROCS(procs)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("%d and %d bytes differ", len(first), len(second))
	}
}

func TestBuildRefuses(t *testing.T) {
	whole := options(t)
	for name, tc := range map[string]struct {
		change func(*testing.T, *deb.Options)
		is     error
		want   string
	}{
		"no version":   {func(_ *testing.T, o *deb.Options) { o.Version = "" }, deb.ErrOptions, "Version is empty"},
		"bad version":  {func(_ *testing.T, o *deb.Options) { o.Version = "1.2" }, deb.ErrOptions, "MAJOR.MINOR.PATCH"},
		"bad revision": {func(_ *testing.T, o *deb.Options) { o.Revision = "1-2" }, deb.ErrOptions, "revision"},
		"no epoch":     {func(_ *testing.T, o *deb.Options) { o.Epoch = time.Time{} }, deb.ErrOptions, "Epoch"},
		"no program": {func(t *testing.T, o *deb.Options) {
			o.Command = filepath.Join(t.TempDir(), "script")
			write(t, o.Command, "#!/bin/sh\n")
		}, deb.ErrCommand, "no ELF program"},
		"dynamic program": {func(t *testing.T, o *deb.Options) {
			sh, err := exec.LookPath("sh")
			if err != nil {
				t.Fatal(err)
			}
			o.Command = sh
		}, deb.ErrCommand, "CGO_ENABLED=0"},
		"no bundle": {func(t *testing.T, o *deb.Options) { o.BundleDir = t.TempDir() }, deb.ErrBundle, "unpacked bundle"},
		"changed bundle": {func(t *testing.T, o *deb.Options) {
			o.BundleDir = writeBundle(t)
			write(t, filepath.Join(o.BundleDir, "llama-server"), "sErver")
		}, deb.ErrBundle, "build it anew"},
		"foreign file in the bundle": {func(t *testing.T, o *deb.Options) {
			o.BundleDir = writeBundle(t)
			write(t, filepath.Join(o.BundleDir, "more"), "x")
		}, deb.ErrBundle, "build it anew"},
		"no manual":         {func(t *testing.T, o *deb.Options) { o.Manual = t.TempDir() }, deb.ErrOptions, "writemanual"},
		"no module sources": {func(t *testing.T, o *deb.Options) { o.ModuleCache = t.TempDir() }, deb.ErrCommand, "go mod download"},
	} {
		t.Run(name, func(t *testing.T) {
			o := whole
			o.OutDir = t.TempDir()
			tc.change(t, &o)
			out, err := deb.Build(t.Context(), o)
			if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, %v; want an error about %q", out, err, tc.want)
			}
			left, err := os.ReadDir(o.OutDir)
			if err != nil || len(left) != 0 {
				t.Errorf("output folder holds %v, %v", left, err)
			}
		})
	}
}

func TestBuildCancelled(t *testing.T) {
	o := options(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := deb.Build(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(o.OutDir); len(left) != 0 {
		t.Errorf("output folder holds %v", left)
	}
}

func write(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
}

// The order is asked of dpkg itself.
func TestVersionOrder(t *testing.T) {
	ordered := []struct{ version, revision, want string }{
		{"0.2.0-alpha-2", "", "0.2.0~alpha.2-1"},
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
	}
}
