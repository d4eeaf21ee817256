//go:build install

package install_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/debgen"
	"forge.lthn.ai/core/go-rocm/testing/install"
)

// repositoryURL is the URL at which aptsite serves the repository.
const repositoryURL = "http://127.0.0.1:8080/apt"

// archive creates repositories for the machines of a test.
type archive struct {
	t    *testing.T
	key  []byte
	keys *apt.Keys
	site string // the program that serves them
	now  time.Time
}

func newArchive(t *testing.T) *archive {
	t.Helper()
	a := &archive{t: t, site: filepath.Join(t.TempDir(), "aptsite"), now: time.Now()}
	a.key = a.newKey()
	a.keys = a.parse(a.key)
	build := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", a.site, "forge.lthn.ai/core/go-rocm/testing/install/aptsite")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return a
}

// newKey returns a key that is older than every repository of a test.
func (a *archive) newKey() []byte {
	a.t.Helper()
	e, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return a.now.AddDate(-1, 0, 0) },
	})
	if err != nil {
		a.t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.SerializePrivateWithoutSigning(&b, nil); err != nil {
		a.t.Fatal(err)
	}
	return b.Bytes()
}

func (a *archive) parse(key []byte) *apt.Keys {
	a.t.Helper()
	keys, err := apt.ParseKeys(key, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return keys
}

// publish adds packages to the repository in dir, with a date in the past.
func (a *archive) publish(dir string, ago time.Duration, change func(*apt.Options), debs ...string) {
	a.t.Helper()
	o := apt.Options{Dir: dir, URL: repositoryURL, Suite: "stable", Debs: debs, Date: a.now.Add(-ago), Keys: a.keys}
	if change != nil {
		change(&o)
	}
	if err := apt.Publish(a.t.Context(), o); err != nil {
		a.t.Fatal(err)
	}
}

// small writes a version of the package thing, which contains one line of text.
func (a *archive) small(version string) string {
	a.t.Helper()
	path, err := debgen.Package{
		Control: debgen.Control("thing", version), Compression: ".xz", Files: map[string]string{"usr/share/thing": "this is " + version + "\n"},
	}.Write(a.t.TempDir(), "thing.deb")
	if err != nil {
		a.t.Fatal(err)
	}
	return path
}

// client is a machine whose only repository is the test's.
type client struct{ *box }

// client starts a machine of the suite, serves the site on it, and installs the
// repository's keyring package with apt.
func (a *archive) client(suite, dir string) *client {
	a.t.Helper()
	b := &client{start(a.t, suite)}
	// The administrator's machine has none of the settings that mmdebstrap used.
	b.sh("rm -f /etc/apt/apt.conf.d/99mmdebstrap && rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /var/lib/apt/lists/* && mkdir -p /srv/www /srv/state")
	if err := b.Copy(a.t.Context(), a.site, "/srv/aptsite"); err != nil {
		a.t.Fatal(err)
	}
	b.state("first", dir)
	b.show("first")
	b.serve("")
	b.sh("apt-get install -y /srv/www/apt/pool/main/g/go-rocm-archive-keyring/*.deb")
	return b
}

// state copies a repository to the machine under a name.
func (c *client) state(name, dir string) {
	c.t.Helper()
	packed := filepath.Join(c.t.TempDir(), name+".tar")
	pack(c.t, dir, packed)
	if err := c.Copy(c.t.Context(), packed, "/srv/state.tar"); err != nil {
		c.t.Fatal(err)
	}
	c.sh("mkdir /srv/state/" + name + " && tar -C /srv/state/" + name + " -xf /srv/state.tar && rm /srv/state.tar")
}

// pack writes a directory to a tar file.
func pack(t *testing.T, dir, file string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", dir, "-cf", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
}

// show serves the state of that name.
func (c *client) show(name string) {
	c.t.Helper()
	c.sh("ln -sfn /srv/state/" + name + " /srv/www/apt")
}

// serve starts the site, or restarts it with other options.
func (c *client) serve(options string) {
	c.t.Helper()
	c.sh(`if test -e /srv/pid; then kill "$(cat /srv/pid)"; while test -e "/proc/$(cat /srv/pid)/exe"; do sleep 0.05; done; fi
		chmod +x /srv/aptsite
		/srv/aptsite -root /srv/www ` + options + ` </dev/null >/srv/log 2>&1 &
		echo $! >/srv/pid
		until grep -q LISTENING /srv/log; do kill -0 "$(cat /srv/pid)" || { cat /srv/log; exit 1; }; sleep 0.05; done`)
}

// apt runs apt-get without retries, and returns its output.
func (c *client) apt(arguments string) (string, error) {
	c.t.Helper()
	out, err := c.Run(c.t.Context(), "", "sh", "-c", "apt-get -y -o Acquire::Retries=0 "+arguments+" 2>&1")
	var failed *install.CommandError
	if errors.As(err, &failed) {
		return failed.Output, err
	}
	return out, err
}

// candidate returns the version of thing that apt would install.
func (c *client) candidate() string {
	c.t.Helper()
	return strings.TrimSpace(c.sh("apt-cache policy thing | sed -n 's/^  Candidate: //p'"))
}

// TestRepositoryServes runs the administrator's commands: trust the repository, install,
// upgrade, downgrade.
func TestRepositoryServes(t *testing.T) {
	a, m := newArchive(t), newMaker(t)
	older, newer := t.TempDir(), t.TempDir()
	const llama = "v0.5.0"
	a.publish(older, 2*time.Hour, nil, m.command("0.1.0", llama), m.bundle("0.1.0", "hip", llama), m.bundle("0.1.0", "cpu", llama))
	if err := apt.Mirror(t.Context(), older, newer); err != nil {
		t.Fatal(err)
	}
	a.publish(newer, time.Hour, nil, m.command("0.2.0", llama))
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			a := *a
			a.t = t
			c := a.client(suite, older)
			works := func(step, version string) {
				t.Helper()
				want := "go-rocm " + version + ", go-rocm-llama-hip 0.1.0-1, "
				if got := c.sh("dpkg-query -W -f '${Package} ${Version}, ' go-rocm go-rocm-llama-hip && go-rocm version >/dev/null"); got != want {
					t.Errorf("%s: there is %q, want %q", step, got, want)
				}
			}
			c.sh("apt-get update && apt-get install -y go-rocm")
			works("install", "0.1.0-1")
			c.state("newer", newer)
			c.show("newer")
			c.sh("apt-get update && apt-get upgrade -y")
			works("upgrade", "0.2.0-1")
			c.sh("apt-get install -y --allow-downgrades go-rocm=0.1.0-1")
			works("rollback", "0.1.0-1")
			if asked := c.sh("grep -c /by-hash/SHA256/ /srv/log; ! grep binary-amd64/Packages /srv/log"); asked == "0\n" {
				t.Error("apt did not ask for indexes by their digests")
			}
			if fetched := c.sh("grep -c /go-rocm-llama-hip_ /srv/log"); fetched != "1\n" {
				t.Errorf("the bundle was fetched %s times", strings.TrimSpace(fetched))
			}
			c.sh("apt-get purge -y go-rocm go-rocm-llama-hip go-rocm-archive-keyring && test ! -e /usr/share/keyrings/go-rocm-archive-keyring.gpg && test ! -e /etc/apt/sources.list.d/go-rocm.sources")
		})
	}
}

// TestRepositoryNeverFailsAClient runs apt while packages are published continuously, and
// between every two of its requests. Without indexes under their digests, the same run
// must fail, which shows that the publications hit the critical moment.
func TestRepositoryNeverFailsAClient(t *testing.T) {
	const rounds = 30
	a := newArchive(t)
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			a := *a
			a.t = t
			dir := t.TempDir()
			a.publish(dir, time.Hour, nil, a.small("1.0-1"))
			c := a.client(suite, dir)
			if err := c.Write(t.Context(), "/srv/key", string(a.key)); err != nil {
				t.Fatal(err)
			}
			c.serve("-key /srv/key")
			published := func() int {
				n, err := strconv.Atoi(strings.TrimSpace(c.sh("grep -c PUBLISHED /srv/log || true")))
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
			for round := range rounds {
				if out, err := c.apt("update"); err != nil {
					t.Fatalf("round %d: %s\n%s", round, out, c.sh("tail -n 30 /srv/log"))
				}
			}
			if out, err := c.apt("install thing other1"); err != nil {
				t.Errorf("install: %s", out)
			}
			if n := published(); n < rounds {
				t.Errorf("there were %d publishes in %d rounds", n, rounds)
			}
			c.serve("-key /srv/key -ago 20m -nobyhash")
			for range 3 {
				if out, err := c.apt("update"); err == nil || !strings.Contains(out, "Mirror sync in progress?") && !strings.Contains(out, "Hash Sum mismatch") {
					t.Errorf("without indexes by digest apt was to fail, or the test misses the moment that it is about:\n%s", out)
				}
			}
		})
	}
}

// TestRepositoryLintian checks the keyring package with Debian's lintian.
func TestRepositoryLintian(t *testing.T) {
	a, dir := newArchive(t), t.TempDir()
	a.publish(dir, time.Hour, nil)
	found, err := filepath.Glob(filepath.Join(dir, "pool/main/g/go-rocm-archive-keyring/*.deb"))
	if err != nil || len(found) != 1 {
		t.Fatalf("packages with keys: %v, %v", found, err)
	}
	c, err := engine(t).Start(t.Context(), install.Machine{Suite: "bookworm", Include: []string{"lintian"}})
	if err != nil {
		t.Fatal(err)
	}
	b := adopt(t, c)
	debs := b.copyIn(found)
	b.sh("useradd --create-home checker")
	b.as("checker", "lintian --profile debian --fail-on error,warning "+debs)
}
