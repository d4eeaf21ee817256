package apt_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

func read(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPublishWritesASignedRepository(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t, nil), t.TempDir()
	deb := newDeb(t, "thing", "1.0-1", "one")
	publish(t, options(dir, keysOf(t, key), first, deb))

	body, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	packages := read(t, dir, "dists/stable/main/binary-amd64/Packages")
	stanza := "Package: thing\nVersion: 1.0-1\nArchitecture: amd64\nMaintainer: A. Person <person@example.org>\nSection: misc\nDescription: for a test\n Only that.\n" +
		"Filename: pool/main/t/thing/thing_1.0-1_amd64.deb\nSize: " + strconv.Itoa(len(body)) + "\nSHA256: " + hash(body) + "\n"
	if !strings.HasSuffix(packages, "\n\n"+stanza) {
		t.Errorf("Packages:\n%s\nwant the suffix:\n%s", packages, stanza)
	}
	for _, want := range []string{"Package: go-rocm-archive-keyring\n", "Architecture: all\n", "Version: 20261120.120000-1\n"} {
		if !strings.Contains(packages, want) {
			t.Errorf("Packages lacks %q:\n%s", want, packages)
		}
	}
	contents := read(t, dir, "dists/stable/main/Contents-amd64")
	for _, want := range []string{"usr/share/common misc/thing\n", "usr/share/thing/text of thing misc/thing\n", "usr/share/keyrings/go-rocm-archive-keyring.gpg misc/go-rocm-archive-keyring\n"} {
		if !strings.Contains(contents, want) {
			t.Errorf("Contents lacks %q:\n%s", want, contents)
		}
	}
	release := read(t, dir, "dists/stable/Release")
	for _, want := range []string{"Suite: stable\n", "Date: Fri, 20 Nov 2026 12:00:00 UTC\n", "Valid-Until: Thu, 18 Feb 2027 12:00:00 UTC\n", "Acquire-By-Hash: yes\n", "Components: main\n"} {
		if !strings.Contains(release, want) {
			t.Errorf("Release lacks %q:\n%s", want, release)
		}
	}
	wantSources := "Types: deb\nURIs: https://example.org/apt/\nSuites: stable\nComponents: main\nArchitectures: amd64\nSigned-By: /usr/share/keyrings/go-rocm-archive-keyring.gpg\n"
	if diff := cmp.Diff(wantSources, read(t, dir, "go-rocm.sources")); diff != "" {
		t.Error(diff)
	}
	checkFormats(t, dir)
	checkSignatures(t, dir, key)
}

// checkFormats reads each index in its three formats.
func checkFormats(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{"dists/stable/main/binary-amd64/Packages", "dists/stable/main/Contents-amd64"} {
		plain := read(t, dir, name)
		x, err := xz.NewReader(strings.NewReader(read(t, dir, name+".xz")))
		if err != nil {
			t.Fatal(err)
		}
		z, err := zstd.NewReader(strings.NewReader(read(t, dir, name+".zst")))
		if err != nil {
			t.Fatal(err)
		}
		defer z.Close()
		for format, r := range map[string]io.Reader{"xz": x, "zst": z} {
			if got, err := io.ReadAll(r); err != nil || string(got) != plain {
				t.Errorf("%s.%s differs from the plain file: %v", name, format, err)
			}
		}
	}
}

func checkSignatures(t *testing.T, dir string, key *openpgp.Entity) {
	t.Helper()
	ring, err := openpgp.ReadKeyRing(strings.NewReader(read(t, dir, "go-rocm-archive-keyring.gpg")))
	if err != nil || len(ring) != 1 || ring[0].PrivateKey != nil || !bytes.Equal(ring[0].PrimaryKey.Fingerprint, key.PrimaryKey.Fingerprint) {
		t.Fatalf("keyring: %d keys, %v", len(ring), err)
	}
	c := client{dir: dir, keys: ring}
	sums, err := c.update()
	if err != nil {
		t.Fatal(err)
	}
	if len(sums) != 6 {
		t.Errorf("InRelease lists %d files, want 6: %v", len(sums), sums)
	}
	if err := c.fetch(sums); err != nil {
		t.Error(err)
	}
	release := read(t, dir, "dists/stable/Release")
	if _, err := openpgp.CheckArmoredDetachedSignature(ring, strings.NewReader(release), strings.NewReader(read(t, dir, "dists/stable/Release.gpg")), nil); err != nil {
		t.Errorf("Release.gpg: %v", err)
	}
	if !strings.Contains(read(t, dir, "dists/stable/InRelease"), strings.TrimSpace(release)+"\n-----BEGIN PGP SIGNATURE") {
		t.Error("InRelease does not contain the text of Release")
	}
}

// The same inputs produce the same bytes in any environment.
func TestPublishIsReproducible(t *testing.T) {
	keys, one, two := keysOf(t, newKey(t, nil)), t.TempDir(), t.TempDir()
	deb := newDeb(t, "thing", "1.0-1", "one")
	publish(t, options(one, keys, first, deb))

	t.Setenv("TZ", "Pacific/Chatham")
	t.Setenv("SOURCE_DATE_EPOCH", "86400")
	old, procs := syscall.Umask(0o077), runtime.GOMAXPROCS(1)
	err := apt.Publish(t.Context(), options(two, keys, first.In(time.FixedZone("x", 3600)), deb))
	syscall.Umask(old)
	runtime.GOMAXPROCS(procs)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(tree(t, one), tree(t, two)); diff != "" {
		t.Error(diff)
	}
	before := tree(t, one)
	publish(t, options(one, keys, first, deb))
	if diff := cmp.Diff(before, tree(t, one)); diff != "" {
		t.Errorf("publishing again changes (-before +after):\n%s", diff)
	}
}

func TestPublishLinksPackages(t *testing.T) {
	t.Parallel()
	work := t.TempDir()
	deb := filepath.Join(work, "thing.deb")
	if err := os.Rename(newDeb(t, "thing", "1.0-1", "one"), deb); err != nil {
		t.Fatal(err)
	}
	publish(t, options(filepath.Join(work, "apt"), nil, first, deb))
	a, errA := os.Stat(deb)
	b, errB := os.Stat(filepath.Join(work, "apt/pool/main/t/thing/thing_1.0-1_amd64.deb"))
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		t.Errorf("the package was copied: %v, %v", errA, errB)
	}
}

func TestPublishUnsigned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	publish(t, options(dir, nil, first, newDeb(t, "thing", "1.0-1", "one")))
	for _, name := range []string{"dists/stable/InRelease", "dists/stable/Release.gpg", "go-rocm-archive-keyring.gpg"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !os.IsNotExist(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	sources := read(t, dir, "go-rocm.sources")
	if !strings.Contains(sources, "\nTrusted: yes\n") || !strings.HasPrefix(sources, "# This repository is unsigned") {
		t.Errorf("sources:\n%s", sources)
	}
}

func TestNewestVersion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if version, digest, err := apt.NewestVersion(dir, "stable", "thing"); version+digest != "" || err != nil {
		t.Errorf("empty repository: %q %q %v", version, digest, err)
	}
	old, young := newDeb(t, "thing", "1.9.0~rc.1-1", "one"), newDeb(t, "thing", "1.10.0-1", "two")
	publish(t, options(dir, nil, first, young, old, newDeb(t, "thing", "1.9.0-2", "three"), newDeb(t, "other", "2.0-1", "four")))
	b, err := os.ReadFile(young)
	if err != nil {
		t.Fatal(err)
	}
	if version, digest, err := apt.NewestVersion(dir, "stable", "thing"); version != "1.10.0-1" || digest != hash(b) || err != nil {
		t.Errorf("got %q %q %v", version, digest, err)
	}
	if version, _, err := apt.NewestVersion(dir, "stable", "none"); version != "" || err != nil {
		t.Errorf("unknown package: %q %v", version, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dists/stable/main/binary-amd64/Packages"), []byte("no field\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := apt.NewestVersion(dir, "stable", "thing"); !errors.Is(err, apt.ErrRepository) {
		t.Errorf("invalid index: %v", err)
	}
}
