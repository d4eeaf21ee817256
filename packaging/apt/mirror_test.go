package apt_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/testing/ctxtest"
)

func TestMirrorFollowsEveryPublish(t *testing.T) {
	t.Parallel()
	key, from, to := newKey(t, nil), t.TempDir(), filepath.Join(t.TempDir(), "served")
	keys := keysOf(t, key)
	c := client{dir: to, keys: openpgp.EntityList{key}}
	var previous map[string]string
	for i, day := range []int{0, 1, 20, 60} {
		publish(t, options(from, keys, first.AddDate(0, 0, day), newDeb(t, "thing", fmt.Sprintf("1.%d-1", i), "body")))
		if err := apt.Mirror(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tree(t, from), tree(t, to)); diff != "" {
			t.Errorf("publish %d (-from +to):\n%s", i, diff)
		}
		if previous != nil {
			if err := c.fetch(previous); err != nil {
				t.Errorf("publish %d: a file of the previous publish is missing: %v", i, err)
			}
		}
		var err error
		if previous, err = c.update(); err != nil {
			t.Fatal(err)
		}
	}
	before := tree(t, to)
	if err := apt.Mirror(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, tree(t, to)); diff != "" {
		t.Errorf("mirroring again changes:\n%s", diff)
	}
}

// Wherever the context is cancelled, also in the middle of a large package, the
// call returns, and clients see a complete repository.
func TestContextCancelsWithinLargeFiles(t *testing.T) {
	t.Parallel()
	key, from, to := newKey(t, nil), t.TempDir(), t.TempDir()
	keys := keysOf(t, key)
	noise := make([]byte, 1<<20) // incompressible
	if _, err := rand.NewChaCha8([32]byte{}).Read(noise); err != nil {
		t.Fatal(err)
	}
	large := newDeb(t, "large", "1.0-1", string(noise))
	publish(t, options(from, keys, first, large))
	if err := apt.Mirror(t.Context(), from, to); err != nil {
		t.Fatal(err)
	}
	c := client{dir: to, keys: openpgp.EntityList{key}}
	for name, tc := range map[string]struct {
		work   func(context.Context) error
		checks int // minimum number of context checks
	}{
		// It reads both copies of the package, 32 KiB at a time.
		"mirror": {func(ctx context.Context) error { return apt.Mirror(ctx, from, to) }, 2 * 32},
		// It reads the published package once and the given one twice.
		"publish": {func(ctx context.Context) error { return apt.Publish(ctx, options(to, keys, first, large)) }, 3 * 32},
	} {
		t.Run(name, func(t *testing.T) {
			n := 1
			for ; ; n += 7 {
				err := tc.work(ctxtest.Ends(t, int64(n)))
				if err == nil {
					break
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("cancelled at check %d: %v", n, err)
				}
				sums, err := c.update()
				if err == nil {
					err = c.fetch(sums)
				}
				if err != nil {
					t.Fatalf("cancelled at check %d: client: %v", n, err)
				}
			}
			if n < tc.checks {
				t.Errorf("%d context checks, want at least %d", n, tc.checks)
			}
		})
	}
}

func TestMirrorRejects(t *testing.T) {
	t.Parallel()
	keys := keysOf(t, newKey(t, nil))
	one := newDeb(t, "thing", "1.0-1", "one")
	for name, tc := range map[string]struct {
		served func(t *testing.T, from, to string)
		is     error
		want   string
	}{
		"a publish that is not in the source": {func(t *testing.T, _, to string) {
			publish(t, options(to, keys, first.Add(time.Minute), one))
		}, apt.ErrRepository, "repeat the release on top"},
		"a newer publish": {func(t *testing.T, from, to string) {
			if err := apt.Mirror(t.Context(), from, to); err != nil {
				t.Fatal(err)
			}
			publish(t, options(to, keys, first.Add(time.Minute)))
		}, apt.ErrRepository, "repeat the release on top"},
		"a version with other bytes": {func(t *testing.T, _, to string) {
			dir := filepath.Join(to, "pool/main/t/thing")
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			overwrite(t, filepath.Join(dir, "thing_1.0-1_amd64.deb"), "x")
		}, apt.ErrVersionConflict, "raise the version"},
		"nothing to mirror": {func(t *testing.T, from, _ string) {
			if err := os.RemoveAll(filepath.Join(from, "dists")); err != nil {
				t.Fatal(err)
			}
		}, apt.ErrRepository, "there is no repository"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			from, to := t.TempDir(), t.TempDir()
			publish(t, options(from, keys, first, one))
			tc.served(t, from, to)
			before := tree(t, to)
			if err := apt.CheckMirror(t.Context(), from, to); !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("CheckMirror: %v; want an error about %q", err, tc.want)
			}
			if diff := cmp.Diff(before, tree(t, to)); diff != "" {
				t.Errorf("CheckMirror changed something:\n%s", diff)
			}
			if err := apt.Mirror(t.Context(), from, to); !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v; want an error about %q", err, tc.want)
			}
			if got := tree(t, to)["dists/stable/InRelease"]; got != before["dists/stable/InRelease"] {
				t.Error("a rejected mirror changed what clients see")
			}
		})
	}
}

// A publisher with two names of one directory would wait for its own lock.
func TestMirrorOntoItselfIsRejected(t *testing.T) {
	t.Parallel()
	from := t.TempDir()
	publish(t, options(from, keysOf(t, newKey(t, nil)), first))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(from, link); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, to := range []string{from, link} {
		for name, mirror := range map[string]func(context.Context, string, string) error{"Mirror": apt.Mirror, "CheckMirror": apt.CheckMirror} {
			if err := mirror(ctx, from, to); !errors.Is(err, apt.ErrOptions) {
				t.Errorf("%s to %s: %v", name, to, err)
			}
		}
	}
	if err := apt.CheckMirror(ctx, from, filepath.Join(link, "no", "such")); err != nil {
		t.Errorf("to a missing directory: %v", err)
	}
}
