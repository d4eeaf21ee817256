package build

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testFunctions returns the sources of the test functions below root, by name.
func testFunctions(t *testing.T, root string, dirs ...string) map[string]string {
	t.Helper()
	start := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	found := map[string]string{}
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e fs.DirEntry, err error) error {
			if dir == "." && err == nil && e.IsDir() && path != filepath.Clean(root) {
				return fs.SkipDir // "." means the root package alone
			}
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, at := range start.FindAllSubmatchIndex(text, -1) {
				body, _, _ := strings.Cut(string(text[at[0]:]), "\n}\n")
				found[string(text[at[2]:at[3]])] = body
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// TestFaultsPage compares docs/faults.md with the tests: every test that it names
// exists, and each of the thirty faults has a test that is repeated and checks for
// leaks.
func TestFaultsPage(t *testing.T) {
	const root = "../.."
	page, err := os.ReadFile(filepath.Join(root, faultsPage))
	if err != nil {
		t.Fatal(err)
	}
	all := testFunctions(t, root, ".", "cmd", "internal/gateway", "internal/regfile", "pkg", "runtime", "testing/e2e", "testing/install")
	for _, name := range faultTests(string(page)) {
		if _, ok := all[name]; !ok {
			t.Errorf("%s names %s, which does not exist", faultsPage, name)
		}
	}
	repeated := testFunctions(t, root, torturePackages...)
	rows := map[int][]string{}
	for line := range strings.Lines(string(page)) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 {
			continue
		}
		if n, err := strconv.Atoi(strings.TrimSpace(cells[1])); err == nil {
			rows[n] = faultTests(line)
		}
	}
	for n := 1; n <= 30; n++ {
		if !slices.ContainsFunc(rows[n], func(name string) bool { return strings.Contains(repeated[name], "torture.Rounds(t, ") }) {
			t.Errorf("fault %d: none of %q is repeated", n, rows[n])
		}
	}
	if len(rows) != 30 {
		t.Errorf("%d rows with a number, want 30", len(rows))
	}
}

func TestFaultTestsFindsEachTestOnce(t *testing.T) {
	got := faultTests("| 1 | `TestB_2`, `TestA` and `TestA`, Test C, `Tester`, `x.TestD` |")
	if want := []string{"TestA", "TestB_2", "Tester"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
