package deb_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// randomVersion returns a version with one of a few cores, so that pre-releases
// decide most comparisons. Many of its pre-releases must be rejected.
func randomVersion(r *rand.Rand) string {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	v := pick("0.1.0", "0.1.0", "0.1.0", "0.1.1", "0.10.0", "1.0.0")
	var ids []string
	for range r.IntN(4) {
		id := pick("alpha", "beta", "dev", "pre", "rc", "0", "1", "2", "10", "18446744073709551616")
		switch r.IntN(12) {
		case 0:
			id += pick("2", "10", "s", "-", "-2", "A")
		case 1:
			id = pick("Alpha", "RC", "preview", "betas", "a", "z", "x-y", "-", "plain", "rc1", "1a", "0a")
		}
		ids = append(ids, id)
	}
	if len(ids) > 0 {
		v += "-" + strings.Join(ids, ".")
	}
	return v
}

// TestVersionOrderAgreesWithGo compares pairs of all accepted versions in Go and
// in dpkg, with and without the build metadata that releases have.
func TestVersionOrderAgreesWithGo(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var accepted []string
	var rejected int
	for range 4000 {
		v := randomVersion(r)
		switch _, err := deb.ParseVersion(v, ""); {
		case err == nil:
			accepted = append(accepted, v)
		case errors.Is(err, deb.ErrOptions) && strings.Contains(err.Error(), "0.2.0-rc.1"):
			rejected++
		default:
			t.Errorf("%s: %v", v, err)
		}
	}
	if len(accepted) < 1000 || rejected < 500 {
		t.Fatalf("%d versions accepted, %d rejected", len(accepted), rejected)
	}
	var script strings.Builder
	for i := range 20000 {
		a, b := accepted[r.IntN(len(accepted))], accepted[r.IntN(len(accepted))]
		want := semver.Compare("v"+a, "v"+b)
		for _, metadata := range []string{"", "+llama.0.5.0"} {
			da, db := debian(t, a+metadata), debian(t, b+metadata)
			if got := deb.CompareVersions(da, db); got != want {
				t.Fatalf("%s and %s: Go compares %d, %s and %s compare %d", a, b, want, da, db, got)
			}
			if i < 150 {
				fmt.Fprintf(&script, "dpkg --compare-versions '%s' %s '%s' || echo '%s %s'\n", da, []string{"lt", "eq", "gt"}[want+1], db, da, db)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh")
	cmd.Stdin = strings.NewReader(script.String())
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("dpkg disagrees with Go: %v\n%s", err, out)
	}
}

func debian(t *testing.T, version string) string {
	t.Helper()
	v, err := deb.ParseVersion(version, "")
	if err != nil {
		t.Fatal(err)
	}
	return v.String()
}

// Each of these once went down in apt where Go goes up, or the other way.
func TestParseVersionRejectsWhatWouldSortDifferently(t *testing.T) {
	t.Parallel()
	for _, v := range []string{"0.1.0-beta2", "0.1.0-rc10", "0.1.0-alpha-2", "0.1.0-betas", "0.1.0-RC.1", "0.1.0-plain", "0.1.0-1a"} {
		if _, err := deb.ParseVersion(v, ""); !errors.Is(err, deb.ErrOptions) || !strings.Contains(err.Error(), "separated by dots") {
			t.Errorf("%s: %v", v, err)
		}
	}
}
