//go:build install

package install_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/cli"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/manual"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// maker builds packages with a small bundle. apt compares control fields, not sizes.
type maker struct {
	t       *testing.T
	options deb.Options
	program deb.Command
	dir     string // of the bundle
}

// loader is the program that starts every hermetic bundle.
const loader = "ld-linux-x86-64.so.2"

// slimmed is the size of the bundle's one large library, in bytes.
const slimmed = 64 << 20

func newMaker(t *testing.T) *maker {
	t.Helper()
	work := t.TempDir()
	env := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	m := &maker{
		t: t, options: deb.Options{Epoch: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}, dir: filepath.Join(work, "bundle"),
		program: deb.Command{
			Program: filepath.Join(work, "go-rocm"), Manual: filepath.Join(work, "manual"), ModuleCache: env("GOMODCACHE"), GoRoot: env("GOROOT"),
		},
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nopayload", "-ldflags", "-s -w", "-o", m.program.Program, "./cmd/go-rocm")
	build.Dir = "../.." // the command's own module selects its versions
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := manual.Write(m.program.Manual, cli.New(), manual.Options{Version: "0.1.0", Date: m.options.Epoch}); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"llama-server": "#!/bin/sh\n", loader: "loader", "librocblas.so.4": "code", "licenses/llama.cpp/LICENSE": "Copyright (c) 2023 Some Authors\n"} {
		path := filepath.Join(m.dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"llama-server", loader} {
		if err := os.Chmod(filepath.Join(m.dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// A slimmed library is mostly zeros, and a package stores the zeros.
	if err := os.Truncate(filepath.Join(m.dir, "librocblas.so.4"), slimmed); err != nil {
		t.Fatal(err)
	}
	return m
}

// command returns the command's package for a version and a llama.cpp release.
func (m *maker) command(version, llama string) string {
	m.t.Helper()
	o, c := m.options, m.program
	o.Version, o.OutDir, c.LlamaVersion = version, m.t.TempDir(), llama
	out, err := deb.BuildCommand(m.t.Context(), o, c)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// bundle returns the bundle's package for a version, a variant and a llama.cpp release.
func (m *maker) bundle(version, variant, llama string) string {
	m.t.Helper()
	o := m.options
	o.Version, o.OutDir = version, m.t.TempDir()
	made, err := bundle.Build(m.dir, bundle.Manifest{
		Name: "llama-" + variant, Variant: variant, Flavour: bundle.FlavourHermetic, Version: llama,
		Source: bundle.Source{Tag: llama, Tree: strings.Repeat("ab", 20)}, SourceDateEpoch: o.Epoch.Unix(),
		Entry: bundle.Entry{Loader: loader, Program: "llama-server"},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	if err := bundle.WriteManifest(m.dir, made); err != nil {
		m.t.Fatal(err)
	}
	out, err := deb.BuildBundle(m.t.Context(), o, m.dir)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

// joined builds a package from both. It is like the package before they were separated:
// it has the files of both, and provides the bundle's package.
func (b *box) joined(command, llama string) string {
	b.t.Helper()
	b.sh(fmt.Sprintf(`
		dpkg-deb -R %s /srv/one
		dpkg-deb -R %s /srv/llama
		cp -a /srv/llama/usr/lib /srv/one/usr/
		grep usr/lib/go-rocm/ /srv/llama/DEBIAN/md5sums >>/srv/one/DEBIAN/md5sums
		sed -i -e 's/^Depends: .*/Depends: passwd/' /srv/one/DEBIAN/control
		grep -E '^(Provides|Conflicts|Replaces): ' /srv/llama/DEBIAN/control | sed 's/ (= .*)//' >/srv/fields
		sed -i -e '/^Depends: /r /srv/fields' /srv/one/DEBIAN/control
		rm /srv/one/DEBIAN/triggers
		dpkg-deb -Znone -b /srv/one /srv/one.deb >&2
		rm -rf /srv/one /srv/llama /srv/fields`, command, llama))
	return "/srv/one.deb"
}

// TestInstallBundleApart lets apt upgrade a machine from one package to two, upgrade the
// command alone, and change the variant of the bundle. It checks that the command
// requires the llama.cpp release that it was built for.
func TestInstallBundleApart(t *testing.T) {
	t.Parallel()
	m := newMaker(t)
	b := start(t, "bookworm")
	one := func(path string) string { return b.copyIn([]string{path}) }
	installed := func() string {
		out := b.sh(`dpkg-query -W -f '${db:Status-Status} ${Package}=${Version}\n' 'go-rocm*' | sed -n 's/^installed //p'`)
		return strings.Join(strings.Fields(out), " ")
	}
	works := func(step, want string) {
		t.Helper()
		if got := installed(); got != want {
			t.Errorf("%s: installed are %q, want %q", step, got, want)
		}
		b.sh("test -x /usr/lib/go-rocm/llama/llama-server && go-rocm version | grep -q /usr/lib/go-rocm/llama && test -z \"$(dpkg --verify)\" && test -z \"$(dpkg --audit)\"")
	}
	const llama = "v0.5.0"
	b.sh("apt-get install -y " + b.joined(one(m.command("0.1.0", llama)), one(m.bundle("0.1.0", "hip", llama))))
	works("one package", "go-rocm=0.1.0-1")

	// The version is the same; apt compares what the package provides.
	hip := m.bundle("0.1.0", "hip", llama)
	b.sh("apt-get install -y --reinstall " + one(m.command("0.1.0", llama)) + " " + one(hip))
	works("one to two", "go-rocm=0.1.0-1 go-rocm-llama-hip=0.1.0-1")
	var apparent, disk int64
	if _, err := fmt.Sscan(b.sh("stat -c '%s %b' /usr/lib/go-rocm/llama/librocblas.so.4"), &apparent, &disk); err != nil {
		t.Fatal(err)
	}
	if disk *= 512; apparent != slimmed || disk > 1<<20 {
		t.Errorf("of %d bytes that are zeros, %d use disk space", apparent, disk)
	}

	b.sh("apt-get install -y " + one(m.command("0.2.0", llama)))
	works("the command alone", "go-rocm=0.2.0-1 go-rocm-llama-hip=0.1.0-1")

	b.sh("apt-get install -y " + one(m.bundle("0.1.0", "cpu", llama)))
	works("another variant", "go-rocm=0.2.0-1 go-rocm-llama-cpu=0.1.0-1")
	b.sh("apt-get install -y " + one(hip))
	works("the first variant", "go-rocm=0.2.0-1 go-rocm-llama-hip=0.1.0-1")

	const later = "v0.6.0"
	command := one(m.command("0.3.0", later))
	if out, err := b.Run(t.Context(), "", "sh", "-c", "apt-get install -y "+command+" 2>&1"); err == nil {
		t.Errorf("a command for llama.cpp %s was installed with a bundle of %s:\n%s", later, llama, out)
	}
	works("a command that asks for more", "go-rocm=0.2.0-1 go-rocm-llama-hip=0.1.0-1")
	b.sh("apt-get install -y " + command + " " + one(m.bundle("0.3.0", "hip", later)))
	works("with its bundle", "go-rocm=0.3.0-1 go-rocm-llama-hip=0.3.0-1")

	b.sh("apt-get remove -y go-rocm-llama-hip")
	if got := installed(); got != "" {
		t.Errorf("without a bundle there is %q", got)
	}
	b.sh("apt-get purge -y 'go-rocm*' && test ! -e /usr/lib/go-rocm && test ! -e /etc/go-rocm")
}
