package deb_test

import (
	"archive/tar"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/licences"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"github.com/google/go-cmp/cmp"
)

func TestBuildCommand(t *testing.T) {
	t.Parallel()
	out := buildCommand(t, options(t), command(t))
	if filepath.Base(out) != "go-rocm_0.2.0-1_amd64.deb" {
		t.Errorf("got %s", out)
	}
	a := open(t, out)
	checkFiles(t, a, map[string]string{
		"/etc/go-rocm/config.toml":                               "644",
		"/usr/bin/go-rocm":                                       "755",
		"/usr/lib/systemd/system/go-rocm.service":                "644",
		"/usr/lib/sysusers.d/go-rocm.conf":                       "644",
		"/usr/lib/tmpfiles.d/go-rocm.conf":                       "644",
		"/usr/share/bash-completion/completions/go-rocm":         "644",
		"/usr/share/doc/go-rocm/changelog.Debian.gz":             "644",
		"/usr/share/doc/go-rocm/copyright":                       "644",
		"/usr/share/fish/vendor_completions.d/go-rocm.fish":      "644",
		"/usr/share/zsh/vendor-completions/_go-rocm":             "644",
		"/usr/share/go-rocm/monitoring/alerts.yml":               "644",
		"/usr/share/go-rocm/monitoring/dashboard.json":           "644",
		"/usr/share/man/man1/go-rocm.1.gz":                       "644",
		"/usr/share/man/man1/go-rocm-serve.1.gz":                 "644",
		"/usr/share/man/man1/go-rocm-completion.1.gz":            "644",
		"/usr/share/man/man1/go-rocm-completion-bash.1.gz":       "644",
		"/usr/share/man/man1/go-rocm-completion-fish.1.gz":       "644",
		"/usr/share/man/man1/go-rocm-completion-powershell.1.gz": "644",
		"/usr/share/man/man1/go-rocm-completion-zsh.1.gz":        "644",
		"/usr/share/lintian/overrides/go-rocm":                   "644",
	})
	checkControl(t, a, "Package: go-rocm", "Version: 0.2.0-1", "Architecture: amd64", "Multi-Arch: foreign",
		"Maintainer: A. Person <person@example.org>",
		"Depends: passwd, go-rocm-llama-hip | go-rocm-llama, go-rocm-llama (>= 0.5.0)")
	if got := a.text["/conffiles"]; got != "/etc/go-rocm/config.toml\n" {
		t.Errorf("conffiles: %q", got)
	}
	if got := a.text["/triggers"]; got != "interest-noawait /usr/lib/go-rocm/llama\n" {
		t.Errorf("triggers: %q", got)
	}
	checkScripts(t, a, "/postinst", "/prerm", "/postrm")
	log := gunzip(t, a.text["/usr/share/doc/go-rocm/changelog.Debian.gz"])
	if !strings.HasPrefix(log, "go-rocm (0.2.0-1) unstable; urgency=medium\n") || !strings.Contains(log, "go-rocm (0.1.0-1)") || strings.Contains(log, "@MAINTAINER@") {
		t.Errorf("changelog:\n%s", log)
	}
	checkCopyright(t, a.text["/usr/share/doc/go-rocm/copyright"],
		"Files: *\nCopyright: 2026 The go-rocm authors\nLicense: Expat\n",
		"Files: usr/bin/go-rocm\n", "github.com/klauspost/compress", "Copyright (c) 2012 The Go Authors")
}

func TestBuildBundle(t *testing.T) {
	t.Parallel()
	dir := writeBundle(t)
	out := buildBundle(t, options(t), dir)
	if filepath.Base(out) != "go-rocm-llama-hip_0.2.0-1_amd64.deb" {
		t.Errorf("got %s", out)
	}
	a := open(t, out)
	checkFiles(t, a, map[string]string{
		"/usr/lib/go-rocm/llama/ld-linux-x86-64.so.2":          "755",
		"/usr/lib/go-rocm/llama/libllama.so.0":                 "644",
		"/usr/lib/go-rocm/llama/licenses/libc6/copyright":      "644",
		"/usr/lib/go-rocm/llama/licenses/llama.cpp/LICENSE":    "644",
		"/usr/lib/go-rocm/llama/llama-server":                  "755",
		"/usr/lib/go-rocm/llama/manifest.json":                 "644",
		"/usr/share/doc/go-rocm-llama-hip/changelog.Debian.gz": "644",
		"/usr/share/doc/go-rocm-llama-hip/copyright":           "644",
		"/usr/share/lintian/overrides/go-rocm-llama-hip":       "644",
	})
	m, err := bundle.ReadManifest(dir)
	if err != nil {
		t.Fatal(err)
	}
	checkControl(t, a, "Package: go-rocm-llama-hip", "Version: 0.2.0-1", "Architecture: amd64", "Multi-Arch: foreign",
		"Provides: go-rocm-llama (= 0.5.0)", "Conflicts: go-rocm-llama", "Replaces: go-rocm-llama", " sha256:"+m.Digest())
	if !regexp.MustCompile(`(?m)^Installed-Size: [1-9]\d{3,}$`).MatchString(a.text["/control"]) {
		t.Errorf("control has no plausible Installed-Size:\n%s", a.text["/control"])
	}
	checkScripts(t, a, "/postinst")
	log := gunzip(t, a.text["/usr/share/doc/go-rocm-llama-hip/changelog.Debian.gz"])
	want := "go-rocm-llama-hip (0.2.0-1) unstable; urgency=medium\n\n  * llama.cpp v0.5.0, GPU targets: gfx1100. Manifest digest:\n    sha256:" + m.Digest() +
		"\n\n -- A. Person <person@example.org>  Fri, 20 Nov 2026 12:00:00 +0000\n"
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("changelog (-want +got):\n%s", diff)
	}
	checkCopyright(t, a.text["/usr/share/doc/go-rocm-llama-hip/copyright"],
		"Files: *\nCopyright: 2026 The go-rocm authors\nLicense: Expat\n",
		"Files: usr/lib/go-rocm/llama/*\nCopyright: 1991 A. Person\n 1992 B. Person\n Copyright (c) 2023 Some Authors\nLicense: libc6 and llama.cpp\n",
		"\nLicense: llama.cpp\n MIT License\n .\n Copyright (c) 2023 Some Authors\n .\n Permission is granted.\n")
}

func TestBuildCommandFollowsASymlink(t *testing.T) {
	t.Parallel()
	c := command(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(c.Program, link); err != nil {
		t.Fatal(err)
	}
	c.Program = link
	if h := open(t, buildCommand(t, options(t), c)).data["/usr/bin/go-rocm"]; h.Typeflag != tar.TypeReg || h.Size == 0 {
		t.Errorf("packed: type %c, %d bytes", h.Typeflag, h.Size)
	}
}

// One file may contain several licences. Only that of Apache may be replaced with a
// reference to the system's copy: the others require their text in every copy of
// the program.
func TestCopyrightKeepsLicencesBesideApache(t *testing.T) {
	t.Parallel()
	text := open(t, buildCommand(t, options(t), command(t))).text["/usr/share/doc/go-rocm/copyright"]
	_, terms, ok := strings.Cut(text, "\nLicense: Apache-2.0+BSD-3-Clause+Expat\n")
	if !ok {
		t.Fatalf("no paragraph has the terms of github.com/klauspost/compress:\n%s", text)
	}
	terms, _, _ = strings.Cut(terms, "\n\n")
	for part, want := range map[string]int{
		"Redistributions in binary form must reproduce the above": 2,
		"Permission is hereby granted, free of charge":            2,
		"THE SOFTWARE IS PROVIDED \"AS IS\"":                      2,
		"Copyright (c) 2012 The Go Authors.":                      1,
		"Copyright 2016-2017 The New York Times Company":          1,
		"Copyright (c) 2011 The Snappy-Go Authors.":               1,
		"Copyright 2016 The filepathx Authors":                    1,
		"/usr/share/common-licenses/Apache-2.0":                   1,
		"Grant of Patent License":                                 0,
	} {
		if got := strings.Count(terms, part); got != want {
			t.Errorf("%q occurs %d times, want %d:\n%s", part, got, want, terms)
		}
	}
}

func TestCopyrightFileContainsFullTexts(t *testing.T) {
	t.Parallel()
	c := command(t)
	linked, err := licences.FromProgram(c.Program, c.ModuleCache, c.GoRoot)
	if err != nil {
		t.Fatal(err)
	}
	b, err := deb.CopyrightFile(linked, epoch)
	if err != nil {
		t.Fatal(err)
	}
	checkCopyright(t, string(b), "Copyright: 2026 The go-rocm authors", "License: Apache-2.0+BSD-3-Clause+Expat\n", "Grant of Patent License", "The Snappy-Go Authors", "Permission is hereby granted")
	if strings.Contains(string(b), "/usr/share/common-licenses") {
		t.Errorf("it refers to Debian's copies:\n%s", b)
	}
}

func TestBuildWithoutMaintainer(t *testing.T) {
	t.Parallel()
	o := options(t)
	o.Maintainer = ""
	control := open(t, buildBundle(t, o, writeBundle(t))).text["/control"]
	if !strings.Contains(control, "\nMaintainer: "+deb.DefaultMaintainer+"\n") {
		t.Errorf("control:\n%s", control)
	}
}

// checkFiles compares the files of a package and their octal modes with those
// wanted. It also checks owners, times and md5sums.
func checkFiles(t *testing.T, a archive, want map[string]string) {
	t.Helper()
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
	if diff := cmp.Diff(want, modes); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(a.text["/md5sums"]) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		have := md5.Sum([]byte(a.text["/"+name]))
		if hex.EncodeToString(have[:]) != sum {
			t.Errorf("md5sums: %s does not match %s", sum, name)
		}
		delete(want, "/"+name)
	}
	delete(want, "/etc/go-rocm/config.toml") // dpkg keeps its own record of what the administrator changes
	for name := range want {
		t.Errorf("md5sums lacks %s", name)
	}
}

func checkControl(t *testing.T, a archive, lines ...string) {
	t.Helper()
	control := strings.Split(a.text["/control"], "\n")
	for _, line := range lines {
		if !slices.Contains(control, line) {
			t.Errorf("control lacks %q:\n%s", line, a.text["/control"])
		}
	}
}

// checkScripts checks that a package has exactly these maintainer scripts, and that
// a shell can parse them.
func checkScripts(t *testing.T, a archive, names ...string) {
	t.Helper()
	for _, name := range []string{"/preinst", "/postinst", "/prerm", "/postrm"} {
		h, there := a.control[name]
		switch {
		case there != slices.Contains(names, name):
			t.Errorf("%s exists: %t", name, there)
		case there:
			if h.Mode != 0o755 {
				t.Errorf("%s: mode %o", name, h.Mode)
			}
			checkShell(t, name, a.text[name])
		}
	}
}

// checkShell parses a script with a POSIX shell without running it.
func checkShell(t *testing.T, name, script string) {
	t.Helper()
	if !strings.HasPrefix(script, "#!/bin/sh\n") || strings.Contains(script, "{{") {
		t.Errorf("%s is not a shell script:\n%s", name, script)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", name, err, out)
	}
}

func checkCopyright(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
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
		t.Errorf("used and defined licences differ (-used +defined):\n%s", diff)
	}
}

// A bundle with Vulkan alone recommends a driver, and one with HIP says which part of it uses one.
func TestBuildBundlesWithVulkan(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		variant    string
		recommends bool
		says       string
	}{
		{"vulkan", true, "It uses the machine's kernel and its Vulkan driver. It runs only on x86-64. GPU targets: any with a Vulkan driver."},
		{"hip", false, "with the amdgpu driver for HIP, and for Vulkan the machine's driver. It runs only on x86-64. GPU targets: gfx1100."},
	} {
		dir := writeBundle(t)
		old, err := bundle.ReadManifest(dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(filepath.Join(dir, bundle.ManifestName)), os.WriteFile(filepath.Join(dir, "libggml-vulkan.so"), []byte("module"), 0o644)); err != nil {
			t.Fatal(err)
		}
		in := bundle.Manifest{
			Name: "llama-" + tc.variant, Variant: tc.variant, Flavour: old.Flavour, Version: old.Version, Source: old.Source, Entry: old.Entry, SourceDateEpoch: old.SourceDateEpoch,
		}
		if tc.variant == "hip" {
			in.Targets = old.Targets
		}
		m, err := bundle.Build(dir, in)
		if err := errors.Join(err, bundle.WriteManifest(dir, m)); err != nil {
			t.Fatal(err)
		}
		control := open(t, buildBundle(t, options(t), dir)).text["/control"]
		if strings.Contains(control, "\nRecommends: mesa-vulkan-drivers | vulkan-icd\n") != tc.recommends {
			t.Errorf("%s: recommends a driver, or none:\n%s", tc.variant, control)
		}
		if text := strings.Join(strings.Fields(control), " "); !strings.Contains(text, tc.says) {
			t.Errorf("%s: control lacks %q:\n%s", tc.variant, tc.says, control)
		}
	}
}

// The libraries that a system bundle uses from the machine are recommended, under
// their package names in Debian and AMD's archive.
func TestBuildSystemFlavour(t *testing.T) {
	t.Parallel()
	dir := writeBundle(t)
	m, err := bundle.ReadManifest(dir)
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
	if err := bundle.WriteManifest(dir, m); err != nil {
		t.Fatal(err)
	}
	out := buildBundle(t, options(t), dir)
	if got := filepath.Base(out); got != "go-rocm-llama-hip-system_0.2.0-1_amd64.deb" {
		t.Errorf("the bundle's package is %s", got)
	}
	control := open(t, out).text["/control"]
	for _, want := range []string{"Recommends: libamdhip64-6 | hip-runtime-amd, librocblas4 | rocblas\n", "ROCm 6.x"} {
		if !strings.Contains(control, want) {
			t.Errorf("control lacks %q:\n%s", want, control)
		}
	}
	if strings.Contains(control, "all libraries") {
		t.Errorf("the description promises all libraries:\n%s", control)
	}
}
