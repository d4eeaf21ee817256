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

// layouts builds packages of a small bundle; apt decides by control fields, not
// by size.
type layouts struct {
	t       *testing.T
	options deb.Options
}

// loader is what the bundle is started through, as every hermetic one.
const loader = "ld-linux-x86-64.so.2"

// slimmed is the size of the bundle's one large library, in bytes.
const slimmed = 64 << 20

func newLayouts(t *testing.T) *layouts {
	t.Helper()
	epoch := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	work := t.TempDir()
	env := func(name string) string {
		out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	o := deb.Options{
		Epoch: epoch, ModuleCache: env("GOMODCACHE"), GoRoot: env("GOROOT"),
		Command: filepath.Join(work, "go-rocm"), BundleDir: filepath.Join(work, "bundle"), Manual: filepath.Join(work, "manual"),
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "nopayload", "-ldflags", "-s -w", "-o", o.Command, "forge.lthn.ai/core/go-rocm/cmd/go-rocm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if err := manual.Write(o.Manual, cli.New(), manual.Options{Version: "0.1.0", Date: epoch}); err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"llama-server": "#!/bin/sh\n", loader: "loader", "librocblas.so.4": "code", "licenses/llama.cpp/LICENSE": "Copyright (c) 2023 Some Authors\n"} {
		path := filepath.Join(o.BundleDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"llama-server", loader} {
		if err := os.Chmod(filepath.Join(o.BundleDir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// As a slimmed library is: mostly zeros, which a package carries as such.
	if err := os.Truncate(filepath.Join(o.BundleDir, "librocblas.so.4"), slimmed); err != nil {
		t.Fatal(err)
	}
	return &layouts{t: t, options: o}
}

// build gives the packages of a version, with the bundle's variant.
func (l *layouts) build(version, variant string, split bool) []string {
	l.t.Helper()
	o := l.options
	o.Version, o.Split, o.OutDir = version, split, l.t.TempDir()
	m, err := bundle.Build(o.BundleDir, bundle.Manifest{
		Name: "llama-" + variant, Variant: variant, Flavour: bundle.FlavourHermetic, Version: "v0.5.0",
		Source: bundle.Source{Tag: "v0.5.0", Tree: strings.Repeat("ab", 20)}, SourceDateEpoch: o.Epoch.Unix(),
		Entry: bundle.Entry{Loader: loader, Program: "llama-server"},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := bundle.WriteManifest(o.BundleDir, m); err != nil {
		l.t.Fatal(err)
	}
	out, err := deb.Build(l.t.Context(), o)
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// TestInstallSplit has apt move a machine from one package to two and back,
// renew the command alone, and change the variant of the bundle.
func TestInstallSplit(t *testing.T) {
	t.Parallel()
	l := newLayouts(t)
	b := start(t, "bookworm")
	installed := func() string {
		out := b.sh(`dpkg-query -W -f '${db:Status-Status} ${Package}=${Version}\n' 'go-rocm*' | sed -n 's/^installed //p'`)
		return strings.Join(strings.Fields(out), " ")
	}
	works := func(step, want string) {
		t.Helper()
		if got := installed(); got != want {
			t.Errorf("%s: installed are %q, want %q", step, got, want)
		}
		b.sh("test -x /usr/lib/go-rocm/llama/llama-server && go-rocm version | grep -q /usr/lib/go-rocm/llama && test -z \"$(dpkg --verify)\" && dpkg --audit")
	}
	b.sh("apt-get install -y " + b.bring(l.build("0.1.0", "hip", false)))
	works("one package", "go-rocm=0.1.0-1")
	var apparent, disk int64
	if _, err := fmt.Sscan(b.sh("stat -c '%s %b' /usr/lib/go-rocm/llama/librocblas.so.4"), &apparent, &disk); err != nil {
		t.Fatal(err)
	}
	if disk *= 512; apparent != slimmed || disk > 1<<20 {
		t.Errorf("of %d bytes that are zeros, %d take room on disk", apparent, disk)
	}

	two := l.build("0.2.0", "hip", true)
	b.sh("apt-get install -y " + b.bring(two))
	works("one to two", "go-rocm=0.2.0-1 go-rocm-llama-hip=0.2.0-1")

	renewed := l.build("0.3.0", "hip", true)
	b.sh("apt-get install -y " + b.bring(renewed[:1]))
	works("the command alone", "go-rocm=0.3.0-1 go-rocm-llama-hip=0.2.0-1")

	other := l.build("0.3.0", "cpu", true)
	b.sh("apt-get install -y " + b.bring(other[1:]))
	works("another variant", "go-rocm=0.3.0-1 go-rocm-llama-cpu=0.3.0-1")

	b.sh("apt-get install -y " + b.bring(l.build("0.4.0", "hip", false)))
	works("two to one", "go-rocm=0.4.0-1")

	b.sh("apt-get purge -y 'go-rocm*' && test ! -e /usr/lib/go-rocm && test ! -e /etc/go-rocm")
}
