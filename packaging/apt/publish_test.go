package apt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

func count(t *testing.T, dir, pattern string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

const packagesByHash = "dists/stable/main/binary-amd64/by-hash/SHA256/*"

// The indexes of a publish stay for the documented retention, and at least until
// the publish after the next.
func TestReplacedIndexesStayForTheRetention(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t, nil), t.TempDir()
	keys := keysOf(t, key)
	c := client{dir: dir, keys: openpgp.EntityList{key}}
	day := func(n int) time.Time { return first.AddDate(0, 0, n) }
	var listed []map[string]string
	for i, at := range []int{0, 1, 2, 15, 40} {
		publish(t, options(dir, keys, day(at), newDeb(t, "thing", fmt.Sprintf("1.%d-1", i), "body")))
		sums, err := c.update()
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, sums)
	}
	for i, there := range []bool{false, false, false, true, true} {
		if err := c.fetch(listed[i]); (err == nil) != there {
			t.Errorf("publish %d: %v", i, err)
		}
	}
	if got := count(t, dir, packagesByHash); got != 6 {
		t.Errorf("%d indexes, want those of two publishes in three formats", got)
	}
	if got := count(t, dir, "pool/main/t/thing/*.deb"); got != 5 {
		t.Errorf("%d packages in the pool, want all five", got)
	}
	if got := count(t, dir, "pool/main/g/go-rocm-archive-keyring/*.deb"); got != 1 {
		t.Errorf("%d keyring packages, want one", got)
	}
}

func TestLaterDateExtendsValidity(t *testing.T) {
	t.Parallel()
	keys, dir := keysOf(t, newKey(t, nil)), t.TempDir()
	publish(t, options(dir, keys, first, newDeb(t, "thing", "1.0-1", "one")))
	before := read(t, dir, "dists/stable/main/binary-amd64/Packages")
	publish(t, options(dir, keys, first.AddDate(0, 1, 0)))
	if !strings.Contains(read(t, dir, "dists/stable/InRelease"), "Date: Sun, 20 Dec 2026 12:00:00 UTC\n") {
		t.Error("the date did not change")
	}
	if read(t, dir, "dists/stable/main/binary-amd64/Packages") != before {
		t.Error("the packages changed")
	}
}

// While a new and an old key sign, clients that have either accept the repository;
// the keyring package installs the new one.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	old, young, dir := newKey(t, nil), newKey(t, nil), t.TempDir()
	publish(t, options(dir, keysOf(t, old), first, newDeb(t, "thing", "1.0-1", "one")))
	both, err := apt.ParseKeys(append(export(t, old, true), export(t, young, true)...), nil)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, options(dir, both, first.Add(time.Hour)))
	for _, e := range []*openpgp.Entity{old, young} {
		if _, err := (client{dir: dir, keys: openpgp.EntityList{e}}).update(); err != nil {
			t.Error(err)
		}
	}
	if got := count(t, dir, "pool/main/g/go-rocm-archive-keyring/*.deb"); got != 2 {
		t.Errorf("%d keyring packages, want the old and the new one", got)
	}
	after, err := apt.ParseKeys(append(export(t, young, true), export(t, old, false)...), nil)
	if err != nil {
		t.Fatal(err)
	}
	publish(t, options(dir, after, first.Add(2*time.Hour)))
	if _, err := (client{dir: dir, keys: openpgp.EntityList{old}}).update(); err == nil {
		t.Error("a key without a private half signed")
	}
}

func TestPublishRejects(t *testing.T) {
	t.Parallel()
	key := newKey(t, nil)
	keys, other := keysOf(t, key), keysOf(t, newKey(t, nil))
	one := newDeb(t, "thing", "1.0-1", "one")
	for name, tc := range map[string]struct {
		change func(t *testing.T, dir string, o *apt.Options)
		is     error
		want   string
	}{
		"same version, other bytes": {func(t *testing.T, _ string, o *apt.Options) {
			o.Debs = []string{newDeb(t, "thing", "1.0-1", "two")}
		}, apt.ErrVersionConflict, "raise the version"},
		"an unlisted file in the pool": {func(t *testing.T, dir string, o *apt.Options) {
			overwrite(t, filepath.Join(dir, "pool/main/t/thing/thing_2.0-1_amd64.deb"), "x")
			o.Debs = []string{newDeb(t, "thing", "2.0-1", "two")}
		}, apt.ErrVersionConflict, "remove the file"},
		"an earlier date": {func(_ *testing.T, _ string, o *apt.Options) { o.Date = first.Add(-time.Hour) }, apt.ErrDate, "set a later date"},
		"another change at the same date": {func(t *testing.T, _ string, o *apt.Options) {
			o.Date, o.Debs = first, []string{newDeb(t, "thing", "2.0-1", "two")}
		}, apt.ErrDate, "set a later date"},
		"another address at the same date": {func(_ *testing.T, _ string, o *apt.Options) {
			o.Date, o.URL = first, "https://example.net/"
		}, apt.ErrDate, "the keys or the address have changed"},
		"another key":              {func(_ *testing.T, _ string, o *apt.Options) { o.Keys = other }, apt.ErrRepository, "not signed by"},
		"signed before":            {func(_ *testing.T, _ string, o *apt.Options) { o.Keys, o.Unsigned = nil, true }, apt.ErrRepository, "set the key"},
		"neither key nor unsigned": {func(_ *testing.T, _ string, o *apt.Options) { o.Keys = nil }, apt.ErrOptions, "no signing key"},
		"key and unsigned":         {func(_ *testing.T, _ string, o *apt.Options) { o.Unsigned = true }, apt.ErrOptions, "choose one"},
		"no address":               {func(_ *testing.T, _ string, o *apt.Options) { o.URL = "example" }, apt.ErrOptions, "https://example.org/apt"},
		"bad suite":                {func(_ *testing.T, _ string, o *apt.Options) { o.Suite = "../x" }, apt.ErrOptions, "suite"},
		"no date":                  {func(_ *testing.T, _ string, o *apt.Options) { o.Date = time.Time{} }, apt.ErrOptions, "time of this publish"},
		"no directory":             {func(_ *testing.T, _ string, o *apt.Options) { o.Dir = "" }, apt.ErrOptions, "Dir is empty"},
		"not a package": {func(_ *testing.T, dir string, o *apt.Options) {
			o.Debs = []string{filepath.Join(dir, "dists/stable/Release")}
		}, apt.ErrPackage, "not a Debian package"},
		"a missing package": {func(_ *testing.T, dir string, o *apt.Options) { o.Debs = []string{filepath.Join(dir, "none.deb")} }, apt.ErrPackage, "no such file"},
		"a changed package": {func(t *testing.T, dir string, _ *apt.Options) {
			overwrite(t, filepath.Join(dir, "pool/main/t/thing/thing_1.0-1_amd64.deb"), "x")
		}, apt.ErrRepository, "has changed since it was published"},
		"a changed index": {func(t *testing.T, dir string, _ *apt.Options) {
			files, err := filepath.Glob(filepath.Join(dir, packagesByHash))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				overwrite(t, f, "Package: evil\n")
			}
		}, apt.ErrRepository, "does not match the Release file"},
		"a changed Release file": {func(t *testing.T, dir string, _ *apt.Options) {
			path := filepath.Join(dir, "dists/stable/InRelease")
			overwrite(t, path, strings.Replace(read(t, dir, "dists/stable/InRelease"), "Suite: stable", "Suite: others", 1))
		}, apt.ErrRepository, "not signed by"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			// A copy, because the pool links to the published file.
			publish(t, options(dir, keys, first, copyOf(t, one)))
			o := options(dir, keys, first.Add(time.Hour))
			tc.change(t, dir, &o)
			before := tree(t, dir)
			err := apt.Publish(t.Context(), o)
			if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v; want an error about %q", err, tc.want)
			}
			if after := tree(t, dir); len(after) != len(before) || after["dists/stable/InRelease"] != before["dists/stable/InRelease"] {
				t.Errorf("a rejected publish changed the repository: %d files, then %d", len(before), len(after))
			}
		})
	}
}

func copyOf(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), filepath.Base(path))
	overwrite(t, out, string(b))
	return out
}

func overwrite(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestPublishWritesNothingWhenCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := filepath.Join(t.TempDir(), "apt")
	if err := apt.Publish(ctx, options(dir, nil, first, newDeb(t, "thing", "1.0-1", "one"))); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := tree(t, dir); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// Two publishers wait for each other, and a client that reads meanwhile finds
// every file.
func TestConcurrentPublishersNeverBreakClients(t *testing.T) {
	t.Parallel()
	key, dir := newKey(t, nil), t.TempDir()
	keys := keysOf(t, key)
	publish(t, options(dir, keys, first, newDeb(t, "thing", "1.0-1", "one")))
	var debs []string
	for i := range 8 {
		debs = append(debs, newDeb(t, fmt.Sprintf("thing%d", i), "1.0-1", "body"))
	}
	var publishers sync.WaitGroup
	var mu sync.Mutex
	next := 0
	for range 2 {
		publishers.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(debs) {
					return
				}
				// ErrDate: the other publisher was first with a later date.
				err := apt.Publish(t.Context(), options(dir, keys, first.Add(time.Duration(i+1)*time.Second), debs[i]))
				if err != nil && !errors.Is(err, apt.ErrDate) {
					t.Error(err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { publishers.Wait(); close(done) }()
	c := client{dir: dir, keys: openpgp.EntityList{key}}
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		sums, err := c.update()
		if err == nil {
			err = c.fetch(sums)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
