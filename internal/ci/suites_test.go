package ci

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/testing/cases"
)

// The suites get the paths of the products that were made, and a suite whose product
// failed does not run.
func TestProductStepsPassProductsToSuites(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	p := writeModule(t, map[string]string{
		"bundle": "packed",
		"other":  "packed too",
		"testing/e2e/e_test.go": `//go:build e2e

package e2e

import (
	"os"
	"strings"
	"testing"
)

func TestSees(t *testing.T) {
	if p := strings.Split(os.Getenv("GOROCM_BUNDLE"), ":"); len(p) != 2 || !strings.HasPrefix(p[0], "/") || !strings.HasSuffix(p[1], "/other") {
		t.Error(p)
	}
	if os.Getenv("GOROCM_HIP_BUNDLE") != "" {
		t.Error("the failed product is set")
	}
}
`,
		"testing/e2e/go.mod":        "module example.test/m/testing/e2e\n\ngo 1.26\n",
		"testing/install/go.mod":    "module example.test/m/testing/install\n\ngo 1.26\n",
		"testing/install/i_test.go": "//go:build install\n\npackage install\n\nimport \"testing\"\n\nfunc TestNever(*testing.T) {}\n",
	})
	product := func(name, env, path string, err error) Product {
		return Product{Name: name, Env: env, Make: func(context.Context) (string, error) { return path, err }}
	}
	var out strings.Builder
	products, suites := p.ProductSteps(Hooks{
		Products: []Product{
			product("cpu bundle", EnvBundle, filepath.Join(p.Root, "bundle")+":"+filepath.Join(p.Root, "other"), nil),
			product("hip bundle", EnvHIPBundle, "", errors.New("compiler said no")),
			product("deb", EnvDeb, filepath.Join(p.Root, "absent.deb"), nil),
		},
		More: []Step{{Name: "more", Run: returns(Count{}, nil)}},
	})
	err := Run(t.Context(), &out, append(products, suites...)...)
	if want := "3 of 6 steps failed: hip bundle, deb, install tests"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s\n%s", err, want, &out)
	}
	for _, want := range []string{"compiler said no", "absent.deb", "1 passed, 0 failed\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, &out)
		}
	}
}

func TestProductStepsWithoutProductsAreEmpty(t *testing.T) {
	if products, suites := (Project{}).ProductSteps(Hooks{}); len(products)+len(suites) != 0 {
		t.Errorf("got %d products and %d suites", len(products), len(suites))
	}
}

// Products are made one after the other. Install tests run beside the tests that keep the
// processors busy, and the second build, which compiles, after these.
func TestInstallTestsRunBesideTheOthers(t *testing.T) {
	h := Hooks{More: []Step{{Name: "reproduce"}}}
	for _, env := range []string{EnvBundle, EnvSource, EnvDeb, EnvSmallDeb, EnvSmallImage} {
		h.Products = append(h.Products, Product{Name: env, Env: env})
	}
	products, suites := Project{}.ProductSteps(h)
	lanes := map[string][]string{}
	for _, s := range append(products, suites...) {
		lanes[s.Lane] = append(lanes[s.Lane], s.Name)
	}
	want := map[string][]string{
		"":         {EnvBundle, EnvSource, EnvDeb, EnvSmallDeb, EnvSmallImage, "end to end", "reproduce"},
		laneBeside: {"install tests"},
	}
	if diff := cmp.Diff(want, lanes); diff != "" {
		t.Errorf("lanes (-want +got):\n%s", diff)
	}
}

// `mage test` tries every case of the race tests, `mage ci` fewer of those that are alike.
func TestAllCasesIsAskedOfTheRaceTests(t *testing.T) {
	for _, all := range []bool{false, true} {
		if got := slices.Contains(Project{AllCases: all}.raceEnv(), cases.Env+"=all"); got != all {
			t.Errorf("AllCases %v: %q", all, Project{AllCases: all}.raceEnv())
		}
	}
}

// The tests on the products get the same request.
func TestAllCasesIsAskedOfTheProductTests(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	t.Setenv(cases.Env, "")
	files := map[string]string{"all": "a product", "some": "a product"}
	for _, suite := range []string{"e2e", "install"} {
		files["testing/"+suite+"/go.mod"] = "module example.test/m/testing/" + suite + "\n\ngo 1.26\n"
		files["testing/"+suite+"/c_test.go"] = `//go:build ` + suite + `

package ` + suite + `

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCases(t *testing.T) {
	if got, all := os.Getenv("GOROCM_CASES"), filepath.Base(os.Getenv("GOROCM_BUNDLE")) == "all"; (got == "all") != all {
		t.Errorf("all: %v, and the variable is %q", all, got)
	}
}
`
	}
	p := writeModule(t, files)
	for _, name := range []string{"all", "some"} {
		p.AllCases = name == "all"
		h := Hooks{Products: []Product{
			{Name: "cpu bundle", Env: EnvBundle, Make: func(context.Context) (string, error) { return filepath.Join(p.Root, name), nil }},
			{Name: "deb", Env: EnvDeb, Make: func(context.Context) (string, error) { return filepath.Join(p.Root, name), nil }},
		}}
		products, suites := p.ProductSteps(h)
		var out strings.Builder
		if err := Run(t.Context(), &out, append(products, suites...)...); err != nil || !strings.Contains(out.String(), "2 passed, 0 failed") {
			t.Errorf("with %s: %v\n%s", name, err, &out)
		}
	}
}
