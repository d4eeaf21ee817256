//go:build linux && amd64

package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
)

// The cache of a bundle in use: it is listed as such, and not pruned before it is
// released and old enough.
func TestCacheKeepsBundlesInUse(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(extract.CacheEnv, filepath.Join(dir, "cache"))
	pack, next := filepath.Join(dir, "v1.tar.zst"), filepath.Join(dir, "v2.tar.zst")
	for path, version := range map[string]string{pack: "v1", next: "v2"} {
		if err := packBundle(path, version); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOROCM_BUNDLE", pack)
	cache := func(args ...string) string {
		t.Helper()
		var out bytes.Buffer
		c := cacheCommand()
		c.SetArgs(append([]string{}, args...)) // nil would mean the arguments of the test
		c.SetOut(&out)
		c.SetErr(&out)
		if err := c.ExecuteContext(t.Context()); err != nil {
			t.Errorf("%q: %v", args, err)
		}
		return out.String()
	}
	p, err := bundle.OpenFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	inst, err := extract.Extract(t.Context(), p.Reader, extract.Options{Targets: []gfx.Target{"gfx1101"}, Lease: true})
	if err != nil {
		t.Fatal(err)
	}
	used := time.Now().Add(-40 * day)
	if err := os.Chtimes(inst.Dir+".use", used, used); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"llama-test", "v1", "gfx1101", "in use", inst.Dir, used.Format(time.DateOnly)} {
		if got := cache(); !strings.Contains(got, want) {
			t.Errorf("the list lacks %q:\n%s", want, got)
		}
	}
	var list []extract.Cached
	if err := json.Unmarshal([]byte(cache("--json")), &list); err != nil || len(list) != 1 || list[0].Digest != p.Digest() || !list[0].InUse {
		t.Errorf("%+v, %v", list, err)
	}
	prune := func(want string, args ...string) {
		t.Helper()
		if got := cache(append([]string{"prune"}, args...)...); !strings.Contains(got, want) {
			t.Errorf("prune %q prints %q, want %q", args, got, want)
		}
	}
	prune("removed 0 bundles", "--all") // in use
	if err := inst.Lease.Release(); err != nil {
		t.Fatal(err)
	}
	prune("removed 0 bundles") // the bundle that the program would use
	t.Setenv("GOROCM_BUNDLE", next)
	prune("removed 0 bundles", "--days", "50")
	prune("would remove 1 bundles", "--dry-run")
	prune("removed 1 bundles")
	if _, err := os.Stat(inst.Dir); !os.IsNotExist(err) {
		t.Errorf("%s: %v", inst.Dir, err)
	}
}
