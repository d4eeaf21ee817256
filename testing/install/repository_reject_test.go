//go:build install

package install_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

// damage changes the bytes of every file below dir that matches the patterns, and keeps
// their lengths. It creates new files, because the old ones may have other links.
func (a *archive) damage(dir string, change func([]byte) []byte, patterns ...string) {
	a.t.Helper()
	n := 0
	for _, p := range patterns {
		names, err := filepath.Glob(filepath.Join(dir, p))
		if err != nil {
			a.t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				a.t.Fatal(err)
			}
			if err := os.Remove(name); err != nil {
				a.t.Fatal(err)
			}
			if err := os.WriteFile(name, change(b), 0o644); err != nil {
				a.t.Fatal(err)
			}
			n++
		}
	}
	if n == 0 {
		a.t.Fatalf("nothing in %s matches %q", dir, patterns)
	}
}

func flipLast(b []byte) []byte {
	b[len(b)-1] ^= 1
	return b
}

// state creates a repository with thing 1.0 and 2.0, the latter an hour old, and the
// changes of more.
func (a *archive) state(more func(dir string)) string {
	a.t.Helper()
	dir := a.t.TempDir()
	a.publish(dir, 2*time.Hour, nil, a.small("1.0-1"))
	a.publish(dir, time.Hour, nil, a.small("2.0-1"))
	if more != nil {
		more(dir)
	}
	return dir
}

// states are the states of a repository that an attacker can present to a client. The
// client has the state "good". It could have had "old" and "stale" earlier. The others offer a
// newer version of thing.
func (a *archive) states() map[string]string {
	a.t.Helper()
	three := func(dir string, change func(*apt.Options)) {
		a.publish(dir, 30*time.Minute, change, a.small("3.0-1"))
	}
	newest := func(damage func(dir string)) string {
		return a.state(func(dir string) { three(dir, nil); damage(dir) })
	}
	old := a.t.TempDir()
	a.publish(old, 2*time.Hour, nil, a.small("1.0-1"))
	stale := a.t.TempDir()
	a.publish(stale, 48*time.Hour, func(o *apt.Options) { o.Validity = time.Hour }, a.small("1.0-1"))
	stranger, keys := a.t.TempDir(), a.parse(a.newKey())
	three(stranger, func(o *apt.Options) { o.Keys = keys })
	return map[string]string{
		"good":     a.state(nil),
		"old":      old,
		"stale":    stale,
		"stranger": stranger,
		"package":  newest(func(dir string) { a.damage(dir, flipLast, "pool/main/t/thing/thing_3.0-1_amd64.deb") }),
		"index": newest(func(dir string) {
			a.damage(dir, flipLast, "dists/stable/main/binary-amd64/Packages*", "dists/stable/main/binary-amd64/by-hash/SHA256/*")
		}),
		"release": newest(func(dir string) {
			a.damage(dir, func(b []byte) []byte {
				return bytes.Replace(b, []byte("Origin: go-rocm"), []byte("Origin: no-rocm"), 1)
			},
				"dists/stable/InRelease", "dists/stable/Release")
		}),
		"unsigned": newest(func(dir string) {
			for _, name := range []string{"InRelease", "Release.gpg"} {
				if err := os.Remove(filepath.Join(dir, "dists/stable", name)); err != nil {
					a.t.Fatal(err)
				}
			}
		}),
		"expired": a.state(func(dir string) { three(dir, func(o *apt.Options) { o.Validity = time.Minute }) }),
	}
}

// TestRepositoryIsRefused presents manipulated repositories to a client. apt refuses each
// of them and keeps its previous state.
func TestRepositoryIsRefused(t *testing.T) {
	a := newArchive(t)
	states := a.states()
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			a := *a
			a.t = t
			c := a.client(suite, states["good"])
			c.serve("-full")
			for name, dir := range states {
				c.state(name, dir)
			}
			const forget = "rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb"
			know := func() {
				t.Helper()
				c.show("good")
				c.sh(forget + " && apt-get update")
			}
			for _, tc := range refusals() {
				c.sh(forget)
				c.show(tc.state)
				if out, err := c.apt("update"); err == nil || !tc.fresh.MatchString(out) {
					t.Errorf("%s: %v; apt said, without %s:\n%s", tc.state, err, tc.fresh, out)
				}
				if got := c.candidate(); got != "" && got != "(none)" {
					t.Errorf("%s: apt would install thing %s", tc.state, got)
				}
				know()
				c.show(tc.state)
				if out, _ := c.apt("update"); !tc.later.MatchString(out) {
					t.Errorf("%s after the good one: apt said, without %s:\n%s", tc.state, tc.later, out)
				}
				if got := c.candidate(); got != "2.0-1" {
					t.Errorf("%s after the good one: apt would install thing %s", tc.state, got)
				}
			}

			know()
			c.show("package")
			c.sh("apt-get update")
			if out, err := c.apt("install thing"); err == nil || !strings.Contains(out, "Hash Sum mismatch") {
				t.Errorf("a changed package: %v\n%s", err, out)
			}
			c.sh("! dpkg-query -W thing")

			// apt reports no error for a replay of an old state. A machine with a newer
			// state keeps that one; a machine without a state accepts the old one while it is
			// valid.
			know()
			c.show("old")
			c.sh("apt-get update")
			if got := c.candidate(); got != "2.0-1" {
				t.Errorf("a replay: apt would install thing %s", got)
			}
			c.sh(forget + " && apt-get update")
			if got := c.candidate(); got != "1.0-1" {
				t.Errorf("a replay to a machine without a state: apt would install thing %s", got)
			}
		})
	}
}

// refusal has apt's message for a state: on a machine without a state, and on one that has the
// good one. apt 3 verifies signatures with other programs than apt 2, with
// other messages.
type refusal struct {
	state        string
	fresh, later *regexp.Regexp
}

func refusals() []refusal {
	const unsure = `previous index files will be used\. `
	said := func(state, fresh, later string) refusal {
		return refusal{state, regexp.MustCompile("(?s)" + fresh), regexp.MustCompile("(?s)" + later)}
	}
	const changed = `(BADSIG|Message has been manipulated)`
	const unknown = `(NO_PUBKEY|Missing key [0-9A-F]{40})`
	return []refusal{
		said("index", "E: Failed to fetch .* Hash Sum mismatch", "E: Failed to fetch .* Hash Sum mismatch"),
		said("release", changed+".*E: The repository .* is not signed", unsure+".*"+changed),
		said("stranger", unknown+".*E: The repository .* is not signed", unsure+".*"+unknown),
		said("unsigned", "E: The repository .* is not signed", "E: The repository .* is no longer signed"),
		said("expired", `E: Release file for .* is expired \(invalid since`, `E: Release file for .* is expired \(invalid since`),
		said("stale", `E: Release file for .* is expired \(invalid since`, `E: Release file for .* is expired \(invalid since`),
	}
}
