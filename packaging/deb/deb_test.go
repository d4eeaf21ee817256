package deb_test

import (
	"archive/tar"
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"github.com/google/go-cmp/cmp"
)

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
		"/etc/go-rocm/config.toml":                               "644",
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
	if got := a.text["/conffiles"]; got != "/etc/go-rocm/config.toml\n" {
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

// TestBuildSystemFlavour: what the bundle takes from the machine is recommended,
// by either archive's name, and the description does not promise it.
func TestBuildSystemFlavour(t *testing.T) {
	o := options(t)
	o.Split = true
	m, err := bundle.ReadManifest(o.BundleDir)
	if err != nil {
		t.Fatal(err)
	}
	m.Name, m.Flavour = "llama-hip-system", bundle.FlavourSystem
	for i := range m.Files {
		if m.Files[i].Path == "libllama.so.0" {
			m.Files[i].Needed = []string{"libamdhip64.so.6", "librocblas.so.4"}
		}
	}
	by := []string{"libllama.so.0"}
	m.Host = &bundle.Host{ROCm: "6.4.3", Libraries: []bundle.HostLibrary{
		{SONAME: "libamdhip64.so.6", NeededBy: by, Debian: "libamdhip64-6", AMD: "hip-runtime-amd"},
		{SONAME: "librocblas.so.4", NeededBy: by, Debian: "librocblas4", AMD: "rocblas"},
	}}
	if err := bundle.WriteManifest(o.BundleDir, m); err != nil {
		t.Fatal(err)
	}
	out, err := deb.Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if got := filepath.Base(out[1]); got != "go-rocm-llama-hip-system_0.2.0-1_amd64.deb" {
		t.Errorf("the bundle's package is %s", got)
	}
	control := open(t, out[1]).text["/control"]
	for _, want := range []string{"Recommends: libamdhip64-6 | hip-runtime-amd, librocblas4 | rocblas\n", "takes ROCm 6.x from"} {
		if !strings.Contains(control, want) {
			t.Errorf("control lacks %q:\n%s", want, control)
		}
	}
	if strings.Contains(control, "only the kernel") {
		t.Errorf("the description promises all libraries:\n%s", control)
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
