package deb_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/manual"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"github.com/blakesmith/ar"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/spf13/cobra"
)

var epoch = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// buildProgram compiles a static program that links one module from outside, so
// that there is a licence to collect.
func buildProgram(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "go-rocm")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", out, "./testdata/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, b)
	}
	return out
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// writeBundle makes a small bundle with the shape of a real one.
func writeBundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, f := range map[string]struct {
		body string
		mode os.FileMode
	}{
		"ld-linux-x86-64.so.2": {"loader", 0o755},
		"llama-server":         {"server", 0o755},
		"libllama.so.0":        {strings.Repeat("\x00", 1<<20) + "library", 0o644},
		"licenses/libc6/copyright": {
			"Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nCopyright: 1991 A. Person\n  1992 B. Person\nLicense: LGPL-2.1+\n on Debian systems see /usr/share/common-licenses/LGPL-2.1\n", 0o644,
		},
		"licenses/llama.cpp/LICENSE": {"MIT License\n\nCopyright (c) 2023 Some Authors\n\nPermission is granted.\n", 0o644},
	} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.body), f.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, f.mode); err != nil {
			t.Fatal(err)
		}
	}
	target, err := gfx.Parse("gfx1100")
	if err != nil {
		t.Fatal(err)
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-hip", Variant: "hip", Flavour: bundle.FlavourHermetic, Version: "v0.5.0",
		Targets: []gfx.Target{target}, SourceDateEpoch: epoch.Unix(),
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)},
		Entry:  bundle.Entry{Loader: "ld-linux-x86-64.so.2", Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	return dir
}

func options(t *testing.T) deb.Options {
	t.Helper()
	pages := t.TempDir()
	root := &cobra.Command{Use: "go-rocm", Short: "language models"}
	root.AddCommand(&cobra.Command{Use: "serve MODEL", Short: "serve", Run: func(*cobra.Command, []string) {}})
	if err := manual.Write(pages, root, manual.Options{Version: "0.2.0", Date: epoch}); err != nil {
		t.Fatal(err)
	}
	return deb.Options{
		Version: "0.2.0", Epoch: epoch,
		Command: buildProgram(t), BundleDir: writeBundle(t), Manual: pages,
		ModuleCache: goEnv(t, "GOMODCACHE"), GoRoot: goEnv(t, "GOROOT"),
		OutDir: t.TempDir(),
	}
}

// archive is a package taken apart without dpkg, so that header fields are seen
// as they are.
type archive struct {
	control, data map[string]tar.Header
	text          map[string]string // of control and data files
}

func open(t *testing.T, path string) archive {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	a := archive{control: map[string]tar.Header{}, data: map[string]tar.Header{}, text: map[string]string{}}
	r := ar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a
		}
		if err != nil {
			t.Fatal(err)
		}
		switch name := strings.TrimSuffix(h.Name, "/"); name {
		case "control.tar.gz":
			z, err := gzip.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			a.read(t, z, a.control)
		case "data.tar.zst":
			z, err := zstd.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			a.read(t, z, a.data)
			z.Close()
		}
	}
}

func (a archive) read(t *testing.T, r io.Reader, into map[string]tar.Header) {
	t.Helper()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(h.Name, ".")
		into[name] = *h
		a.text[name] = string(b)
	}
}

func gunzip(t *testing.T, s string) string {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(s))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestBuildSingle(t *testing.T) {
	o := options(t)
	out, err := deb.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) != 1 || filepath.Base(out[0]) != "go-rocm_0.2.0-1_amd64.deb" {
		t.Fatalf("got %v, want one go-rocm_0.2.0-1_amd64.deb", out)
	}
	a := open(t, out[0])

	modes := map[string]string{}
	for name, h := range a.data {
		if h.Uid != 0 || h.Gid != 0 || h.Uname != "root" || h.Gname != "root" {
			t.Errorf("%s: owner %d/%d %s/%s", name, h.Uid, h.Gid, h.Uname, h.Gname)
		}
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s: time %s", name, h.ModTime)
		}
		if h.Typeflag == tar.TypeDir {
			if h.Mode != 0o755 {
				t.Errorf("%s: mode %o", name, h.Mode)
			}
			continue
		}
		modes[name] = fmt.Sprintf("%o", h.Mode)
	}
	want := map[string]string{
		"/etc/go-rocm/go-rocm.env":                               "640",
		"/usr/bin/go-rocm":                                       "755",
		"/usr/lib/go-rocm/llama/ld-linux-x86-64.so.2":            "755",
		"/usr/lib/go-rocm/llama/libllama.so.0":                   "644",
		"/usr/lib/go-rocm/llama/licenses/libc6/copyright":        "644",
		"/usr/lib/go-rocm/llama/licenses/llama.cpp/LICENSE":      "644",
		"/usr/lib/go-rocm/llama/llama-server":                    "755",
		"/usr/lib/go-rocm/llama/manifest.json":                   "644",
		"/usr/lib/systemd/system/go-rocm.service":                "644",
		"/usr/lib/sysusers.d/go-rocm.conf":                       "644",
		"/usr/lib/tmpfiles.d/go-rocm.conf":                       "644",
		"/usr/share/bash-completion/completions/go-rocm":         "644",
		"/usr/share/doc/go-rocm/changelog.Debian.gz":             "644",
		"/usr/share/doc/go-rocm/copyright":                       "644",
		"/usr/share/fish/vendor_completions.d/go-rocm.fish":      "644",
		"/usr/share/zsh/vendor-completions/_go-rocm":             "644",
		"/usr/share/man/man1/go-rocm.1.gz":                       "644",
		"/usr/share/man/man1/go-rocm-serve.1.gz":                 "644",
		"/usr/share/man/man1/go-rocm-completion.1.gz":            "644",
		"/usr/share/man/man1/go-rocm-completion-bash.1.gz":       "644",
		"/usr/share/man/man1/go-rocm-completion-fish.1.gz":       "644",
		"/usr/share/man/man1/go-rocm-completion-powershell.1.gz": "644",
		"/usr/share/man/man1/go-rocm-completion-zsh.1.gz":        "644",
		"/usr/share/lintian/overrides/go-rocm":                   "644",
	}
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	checkControl(t, a)
	checkCopyright(t, a.text["/usr/share/doc/go-rocm/copyright"])
}

func checkControl(t *testing.T, a archive) {
	t.Helper()
	control := a.text["/control"]
	for _, line := range []string{
		"Package: go-rocm", "Version: 0.2.0-1", "Architecture: amd64", "Multi-Arch: foreign",
		"Depends: passwd", "Provides: go-rocm-llama", "Conflicts: go-rocm-llama",
	} {
		if !slices.Contains(strings.Split(control, "\n"), line) {
			t.Errorf("control lacks %q:\n%s", line, control)
		}
	}
	if !regexp.MustCompile(`(?m)^Installed-Size: [1-9]\d{3,}$`).MatchString(control) {
		t.Errorf("control has no plausible Installed-Size:\n%s", control)
	}
	if got := a.text["/conffiles"]; got != "/etc/go-rocm/go-rocm.env\n" {
		t.Errorf("conffiles: %q", got)
	}
	for _, name := range []string{"/postinst", "/prerm", "/postrm"} {
		if a.control[name].Mode != 0o755 {
			t.Errorf("%s: mode %o", name, a.control[name].Mode)
		}
		checkShell(t, name, a.text[name])
	}
	sums := strings.Count(a.text["/md5sums"], "\n")
	for line := range strings.Lines(a.text["/md5sums"]) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		have := md5.Sum([]byte(a.text["/"+name]))
		if hex.EncodeToString(have[:]) != sum {
			t.Errorf("md5sums: %s does not hold for %s", sum, name)
		}
	}
	if sums < 20 {
		t.Errorf("md5sums lists only %d files", sums)
	}
	log := gunzip(t, a.text["/usr/share/doc/go-rocm/changelog.Debian.gz"])
	if !strings.HasPrefix(log, "go-rocm (0.2.0-1) unstable; urgency=medium\n") || !strings.Contains(log, "go-rocm (0.1.0-1)") {
		t.Errorf("changelog:\n%s", log)
	}
}

// checkShell has a POSIX shell read a script without running it.
func checkShell(t *testing.T, name, script string) {
	t.Helper()
	if !strings.HasPrefix(script, "#!/bin/sh\n") || strings.Contains(script, "{{") {
		t.Errorf("%s does not begin as a script:\n%s", name, script)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

func checkCopyright(t *testing.T, text string) {
	t.Helper()
	for _, part := range []string{
		"Files: *\nCopyright: 2026 The go-rocm authors\nLicense: Expat\n",
		"Files: usr/bin/go-rocm\n", "github.com/klauspost/compress", "Copyright (c) 2012 The Go Authors",
		"Files: usr/lib/go-rocm/llama/*\nCopyright: 1991 A. Person\n 1992 B. Person\n Copyright (c) 2023 Some Authors\nLicense: libc6 and llama.cpp\n",
		"\nLicense: llama.cpp\n MIT License\n .\n Copyright (c) 2023 Some Authors\n .\n Permission is granted.\n",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("copyright lacks %q:\n%s", part, text)
		}
	}
	defined := map[string]bool{}
	used := map[string]bool{}
	for _, stanza := range strings.Split(text, "\n\n") {
		isFiles := strings.HasPrefix(stanza, "Files:")
		for line := range strings.Lines(stanza) {
			name, ok := strings.CutPrefix(line, "License: ")
			if !ok {
				continue
			}
			for _, n := range strings.Split(strings.TrimSpace(name), " and ") {
				if isFiles {
					used[n] = true
				} else {
					defined[n] = true
				}
			}
		}
	}
	if diff := cmp.Diff(used, defined); diff != "" {
		t.Errorf("licences used and those with a text differ (-used +defined):\n%s", diff)
	}
}

func TestBuildSplit(t *testing.T) {
	o := options(t)
	o.Split = true
	out, err := deb.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range out {
		names = append(names, filepath.Base(p))
	}
	if diff := cmp.Diff([]string{"go-rocm_0.2.0-1_amd64.deb", "go-rocm-llama-hip_0.2.0-1_amd64.deb"}, names); diff != "" {
		t.Fatalf("packages:\n%s", diff)
	}
	command, llama := open(t, out[0]), open(t, out[1])
	for name, h := range command.data {
		if _, both := llama.data[name]; both && h.Typeflag != tar.TypeDir {
			t.Errorf("%s is in both packages", name)
		}
		if strings.HasPrefix(name, "/usr/lib/go-rocm") {
			t.Errorf("%s: a file of the bundle is in the command's package", name)
		}
	}
	if _, ok := llama.data["/usr/lib/go-rocm/llama/llama-server"]; !ok {
		t.Error("the bundle's package lacks llama-server")
	}
	if want := "Depends: passwd, go-rocm-llama-hip | go-rocm-llama\n"; !strings.Contains(command.text["/control"], want) {
		t.Errorf("control lacks %q:\n%s", want, command.text["/control"])
	}
	if strings.Contains(command.text["/postinst"], "fallocate") || !strings.Contains(llama.text["/postinst"], "fallocate") {
		t.Error("holes are to be dug where the bundle is, and there alone")
	}
	if strings.Contains(llama.text["/postinst"], "useradd") {
		t.Error("the bundle's package makes no user")
	}
	checkShell(t, "postinst", command.text["/postinst"])
	checkShell(t, "postinst", llama.text["/postinst"])
	if _, ok := llama.control["/postrm"]; ok {
		t.Error("the bundle's package has nothing to undo")
	}
}

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
