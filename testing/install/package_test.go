//go:build install

package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/install"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"github.com/google/go-cmp/cmp"
)

// packages returns the files of the shipped packages, command and bundle. small returns
// the command with the cpu bundle, built by the same code; tests of the life of a package
// use it.
func packages(t *testing.T) []string { return named(t, "GOROCM_DEB") }

func small(t *testing.T) []string { return named(t, "GOROCM_SMALL_DEB") }

// named returns the files that a variable lists. An empty variable is a failure: these
// tests run only on request.
func named(t *testing.T, variable string) []string {
	t.Helper()
	list := filepath.SplitList(os.Getenv(variable))
	if len(list) == 0 {
		t.Fatalf("%s is empty: give the paths of the .deb files to test, separated by colons; `mage test` builds them", variable)
	}
	for _, p := range list {
		if _, err := os.Stat(p); err != nil {
			t.Fatalf("%s: %v: build it with `mage test`", variable, err)
		}
	}
	return list
}

// box is a machine with helpers for a test.
type box struct {
	*install.Container
	t *testing.T
}

func engine(t *testing.T) *install.Engine {
	t.Helper()
	e, err := install.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func start(t *testing.T, suite string) *box {
	t.Helper()
	c, err := engine(t).Start(t.Context(), install.Machine{Suite: suite})
	if err != nil {
		t.Fatal(err)
	}
	return adopt(t, c)
}

func adopt(t *testing.T, c *install.Container) *box {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	})
	return &box{Container: c, t: t}
}

// as runs a shell command as a user. The test fails if the command fails.
func (b *box) as(user, command string) string {
	b.t.Helper()
	out, err := b.Run(b.t.Context(), user, "sh", "-ec", command)
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func (b *box) sh(command string) string {
	b.t.Helper()
	return b.as("", command)
}

// copyIn copies packages to the machine and returns their names for apt. Packages with
// the same name from two directories do not collide.
func (b *box) copyIn(list []string) string {
	b.t.Helper()
	var names []string
	for _, p := range list {
		name := filepath.Join("/srv", filepath.Base(filepath.Dir(p)), filepath.Base(p))
		if err := b.Copy(b.t.Context(), p, name); err != nil {
			b.t.Fatal(err)
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// older builds the same packages with a lower version, from which to upgrade.
func (b *box) older(debs string) string {
	b.t.Helper()
	return strings.TrimSpace(b.sh(fmt.Sprintf(`
		mkdir -p /srv/older
		for deb in %s; do
			rm -rf /srv/tree && dpkg-deb -R "$deb" /srv/tree
			sed -i 's/^Version: .*/Version: 0.0.1~older-1/' /srv/tree/DEBIAN/control
			echo "# as the older version had it" >>/srv/tree/etc/go-rocm/config.toml || true
			dpkg-deb -Znone -b /srv/tree "/srv/older/$(basename "$deb")" >&2
			printf '/srv/older/%%s ' "$(basename "$deb")"
		done
		rm -rf /srv/tree`, debs)))
}

// files lists everything on the machine that can remain after a package is removed: paths
// with type, owner and mode, without files of the kernel and of this test.
func (b *box) files() []string {
	b.t.Helper()
	out := b.sh(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /srv -o -path /tmp -o -path /run \) -prune -o -printf '%p %y %u:%g %m\n'`)
	list := strings.Split(strings.TrimSpace(out), "\n")
	slices.Sort(list)
	return list
}

// kept lists the files that remain after a purge, each with its reason.
var kept = []struct{ prefix, reason string }{
	{"/etc/passwd-", "the account stays, see postrm; this is passwd's backup"},
	{"/etc/group-", "as /etc/passwd-"},
	{"/etc/shadow-", "as /etc/passwd-"},
	{"/etc/gshadow-", "as /etc/passwd-"},
	{"/etc/.pwd.lock", "passwd's lock"},
	{"/var/log/", "apt's and dpkg's own logs"},
	{"/var/lib/dpkg/", "dpkg's own records; the package's are asked for by name"},
	{"/var/lib/apt/", "apt's own state"},
	{"/var/lib/systemd/deb-systemd-helper", "directories of deb-systemd-helper; the unit's are asked for by name"},
	{"/var/cache/apt/", "apt's cache"},
	{"/var/cache/debconf/", "debconf's working directory"},
	{"/var/cache/ldconfig/", "the C library's cache"},
	{"/etc/ld.so.cache", "as above"},
}

func withoutKept(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(line string) bool {
		return slices.ContainsFunc(kept, func(k struct{ prefix, reason string }) bool { return strings.HasPrefix(line, k.prefix) })
	})
}

func suites() []string { return []string{"bookworm", "trixie"} }

const question = "What is the capital of France? Answer with one word."

func model(ctx context.Context, t *testing.T) string {
	t.Helper()
	path, err := models.Fetch(ctx, models.SmolLM2())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// TestInstallAnswers tests the shipped packages: on a clean machine without a network,
// one apt-get installs them and a model answers to an unprivileged user; one apt-get
// removes them completely.
func TestInstallAnswers(t *testing.T) {
	list := packages(t)
	gguf := model(t.Context(), t)
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			b := start(t, suite)
			debs := b.copyIn(list)
			if err := b.Copy(t.Context(), gguf, "/srv/model.gguf"); err != nil {
				t.Fatal(err)
			}
			b.sh("useradd --create-home someone")
			before := b.files()
			b.sh("apt-get install -y " + debs)

			version := b.as("someone", "go-rocm version")
			installed := b.sh("dpkg-query -W -f '${Version}' go-rocm")
			upstream := installed[:strings.LastIndex(installed, "-")]
			for _, part := range []string{strings.ReplaceAll(upstream, "~", "-"), "/usr/lib/go-rocm/llama", "v0.5.0"} {
				if !strings.Contains(version, part) {
					t.Errorf("go-rocm version lacks %q:\n%s", part, version)
				}
			}
			answer := b.as("someone", "cd && go-rocm run /srv/model.gguf --temperature 0 -p '"+question+"'")
			if !strings.Contains(answer, "Paris") {
				t.Errorf("asked %q, got %q", question, answer)
			}
			if left := b.sh("find /home/someone /tmp -xdev -newer /usr/bin/go-rocm -type f -size +1M"); left != "" {
				t.Errorf("the installed command extracted files:\n%s", left)
			}
			b.sh("test -z \"$(dpkg --verify go-rocm go-rocm-llama-hip)\"")
			b.sh("test -r /usr/share/man/man1/go-rocm.1.gz || grep -rq path-exclude=/usr/share/man /etc/dpkg")
			b.takesNoMoreSpaceThanExtracting()

			b.sh("rm -rf /home/someone/.cache && apt-get purge -y 'go-rocm*'")
			if diff := cmp.Diff(withoutKept(before), withoutKept(b.files())); diff != "" {
				t.Errorf("purge leaves (-before +after):\n%s", diff)
			}
		})
	}
}

// takesNoMoreSpaceThanExtracting compares the disk space with that of an extracted
// bundle, whose files have holes.
func (b *box) takesNoMoreSpaceThanExtracting() {
	b.t.Helper()
	var installed, extracted int64
	out := b.sh("cp -a --sparse=always /usr/lib/go-rocm/llama /srv/extracted; du -sk /usr/lib/go-rocm/llama | cut -f1; du -sk /srv/extracted | cut -f1")
	if _, err := fmt.Sscan(out, &installed, &extracted); err != nil {
		b.t.Fatalf("%v: %q", err, out)
	}
	if extracted < 1000 || installed*10 > extracted*11 {
		b.t.Errorf("installed %d KiB, extracted with holes %d KiB: more than 1.1 times", installed, extracted)
	}
}

// TestInstallLeavesNothing installs, upgrades and removes a package, and checks every file
// of the machine afterwards.
func TestInstallLeavesNothing(t *testing.T) {
	t.Parallel()
	list := small(t)
	for _, suite := range append(suites(), "forky") {
		t.Run(suite, func(t *testing.T) {
			b := start(t, suite)
			debs := b.copyIn(list)
			names := strings.Join(strings.Fields(b.sh("for deb in "+debs+"; do dpkg-deb -f $deb Package; done")), " ")
			before := b.files()

			b.sh("apt-get install -y " + debs)
			once := b.files()
			b.sh("apt-get install -y --reinstall " + debs)
			b.sh("/var/lib/dpkg/info/go-rocm.postinst configure")
			if diff := cmp.Diff(once, b.files()); diff != "" {
				t.Errorf("a second installation differs (-once +twice):\n%s", diff)
			}
			if got := b.sh("id -nG go-rocm"); !slices.Contains(strings.Fields(got), "video") {
				t.Errorf("the service's user is in %q, not in video", got)
			}

			b.sh("apt-get remove -y " + names)
			b.sh("test ! -e /usr/bin/go-rocm && test ! -e /usr/lib/go-rocm && test -e /etc/go-rocm/config.toml")
			b.sh("apt-get install -y " + debs)
			b.sh("apt-get purge -y " + names)
			b.sh("dpkg --purge " + names) // purging a removed package is allowed
			if diff := cmp.Diff(withoutKept(before), withoutKept(b.files())); diff != "" {
				t.Errorf("purge leaves (-before +after):\n%s", diff)
			}
			if left := b.sh("ls -d /var/lib/dpkg/info/go-rocm* /var/lib/systemd/deb-systemd-helper*/go-rocm* 2>/dev/null || true"); left != "" {
				t.Errorf("purge leaves records:\n%s", left)
			}
		})
	}
}

// TestInstallKeepsModels checks that a purge keeps the administrator's files in the
// service's state directory.
func TestInstallKeepsModels(t *testing.T) {
	t.Parallel()
	b := start(t, "bookworm")
	b.sh("apt-get install -y " + b.copyIn(small(t)))
	b.sh("echo model >/var/lib/go-rocm/models/mine.gguf; echo state >/var/lib/go-rocm/state")
	b.sh("apt-get purge -y 'go-rocm*'")
	if got := strings.Fields(b.sh("find /var/lib/go-rocm -mindepth 1")); !slices.Equal(got, []string{"/var/lib/go-rocm/models", "/var/lib/go-rocm/models/mine.gguf"}) {
		t.Errorf("after purge there is %q", got)
	}
}

// TestInstallUpgrades upgrades and downgrades with a configuration file that the
// administrator changed.
func TestInstallUpgrades(t *testing.T) {
	t.Parallel()
	list := small(t)
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			b := start(t, suite)
			debs := b.copyIn(list)
			older := b.older(debs)
			version := func() string { return b.sh("dpkg-query -W -f '${Version} ${Status}' go-rocm") }
			const keep = " -o Dpkg::Options::=--force-confold "

			b.sh("apt-get install -y " + older)
			if got := version(); got != "0.0.1~older-1 install ok installed" {
				t.Fatalf("older version: %q", got)
			}
			b.sh(`sed -i 's|^model = .*|model = "/srv/mine.gguf"|' /etc/go-rocm/config.toml; echo state >/var/lib/go-rocm/state`)
			owner := b.sh("stat -c '%u:%g' /var/lib/go-rocm")

			b.sh("apt-get install -y" + keep + debs)
			if got := version(); strings.HasPrefix(got, "0.0.1~older") || !strings.HasSuffix(got, "install ok installed") {
				t.Errorf("after the upgrade: %q", got)
			}
			b.sh("apt-get install -y --allow-downgrades" + keep + older)
			if got := version(); got != "0.0.1~older-1 install ok installed" {
				t.Errorf("after the downgrade: %q", got)
			}
			b.sh("apt-get install -y" + keep + debs)
			b.sh(`grep -qx 'model = "/srv/mine.gguf"' /etc/go-rocm/config.toml && grep -qx state /var/lib/go-rocm/state`)
			if got := b.sh("stat -c '%u:%g' /var/lib/go-rocm"); got != owner {
				t.Errorf("the state's owner was %s and is %s", owner, got)
			}
			b.as("", "go-rocm version")
		})
	}
}
