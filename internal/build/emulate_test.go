package build

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// TestEmulateRunsItsTests checks that the target's pattern matches every end-to-end test that uses the emulated card or
// can run everything on it, and that there are some.
func TestEmulateRunsItsTests(t *testing.T) {
	pattern, found := regexp.MustCompile(emulateTests), 0
	for name, body := range testFunctions(t, "../..", "testing/e2e") {
		uses := strings.Contains(body, emulateVariable) || strings.Contains(body, "survey.") || strings.Contains(body, "emulate(") || strings.Contains(body, "newRig(")
		switch matches := pattern.MatchString(name); {
		case uses && !matches:
			t.Errorf("mage emulate does not run %s", name)
		case matches:
			found++
		}
	}
	if found < 3 {
		t.Errorf("mage emulate runs %d tests", found)
	}
}

func TestEmulateSettings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		parts, limit string
		want         []string
		wantLimit    time.Duration
	}{
		{"", "", []string{"tests", "operations"}, 0},
		{"operations", "20m", []string{"operations"}, 20 * time.Minute},
		{"tests, operations", "1h", []string{"tests", "operations"}, time.Hour},
	} {
		if got, limit, err := emulateSettings(c.parts, c.limit); err != nil || !slices.Equal(got, c.want) || limit != c.wantLimit {
			t.Errorf("%q %q: %q, %s, %v", c.parts, c.limit, got, limit, err)
		}
	}
	for _, c := range [][2]string{{"test", ""}, {"", "20"}, {"", "0s"}, {"", "-1m"}} {
		if got, limit, err := emulateSettings(c[0], c[1]); err == nil {
			t.Errorf("%q is %q and %s", c, got, limit)
		}
	}
}

// envSampleLog names the file that TestEmulatedSample writes the names of its subtests to, and envSampleFails the subtest
// that fails.
const (
	envSampleLog   = "GOROCM_TEST_SAMPLE_LOG"
	envSampleFails = "GOROCM_TEST_SAMPLE_FAILS"
)

// TestEmulatedSample has subtests for TestEmulateContinues, which runs it in a process of its own.
func TestEmulatedSample(t *testing.T) {
	for _, name := range []string{"gfx1100/Q4_0/flash=true", "gfx1100/Q8_0", "two.five", "last"} {
		t.Run(name, func(t *testing.T) {
			if path := os.Getenv(envSampleLog); path != "" {
				f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := fmt.Fprintln(f, name); err != nil {
					t.Error(err)
				}
				if err := f.Close(); err != nil {
					t.Error(err)
				}
			}
			if os.Getenv(envSampleFails) == name {
				t.Fail()
			}
		})
	}
}

// TestEmulateContinues runs tests of which one fails. The next run runs that one again and not those that have passed, and
// the one after it runs none.
func TestEmulateContinues(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	run := func(fails string) ([]string, error) {
		t.Helper()
		if err := os.RemoveAll(log); err != nil {
			t.Fatal(err)
		}
		tests := emulatedTests{
			program: os.Args[0], dir: dir, passed: filepath.Join(dir, "passed"), out: io.Discard, errors: io.Discard,
			env: []string{envSampleLog + "=" + log, envSampleFails + "=" + fails},
		}
		err := tests.run(t.Context())
		ran, _ := os.ReadFile(log) // none ran if there is no file
		return strings.Fields(string(ran)), err
	}
	if ran, err := run("two.five"); err == nil || len(ran) != 4 {
		t.Errorf("the first run ran %q: %v", ran, err)
	}
	if ran, err := run(""); err != nil || !slices.Equal(ran, []string{"two.five"}) {
		t.Errorf("the second run ran %q: %v", ran, err)
	}
	if ran, err := run("last"); err != nil || len(ran) != 0 {
		t.Errorf("the third run ran %q: %v", ran, err)
	}
}

// TestCoveragePages writes the numbers between the comments of the page, and the families.
func TestCoveragePages(t *testing.T) {
	t.Parallel()
	family := func(part, name string, kernels, executed int) survey.Family {
		return survey.Family{Part: part, Name: name, Kernels: map[gfx.Target]int{"gfx1100": kernels, "gfx1101": kernels}, Executed: map[gfx.Target]int{"gfx1100": executed, "gfx1101": executed}}
	}
	c := &survey.Coverage{
		Targets:  []gfx.Target{"gfx1100", "gfx1101"},
		Families: []survey.Family{family("Tensile", "Cijk", 9, 0), family("libggml-hip", "add", 3, 3), family("libggml-hip", "mul", 3, 1)},
		Others: []survey.Executed{
			{Target: "gfx1100", Object: "a", Kernel: "__amd_rocclr_copyBuffer"},
			{Target: "gfx1101", Object: "b", Kernel: "__amd_rocclr_copyBuffer"},
			{Target: "gfx1101", Object: "b", Kernel: "_Zdamaged"},
		},
	}
	numbers, kernels, err := coveragePages(c)
	if err != nil {
		t.Fatal(err)
	}
	page, err := replaceNumbers([]byte("before\n"+numbersBegin+"old\n"+numbersEnd+"after\n"), numbers)
	if err != nil {
		t.Fatal(err)
	}
	for text, parts := range map[string][]string{
		string(page):    {"before\n<!--", "| libggml-hip | 4 of 6 | 4 of 6 |", "| Tensile | 0 of 9 | 0 of 9 |", "Of 3 families of kernels, 1 were executed whole for each target, 1 in part and 1 not at all", "-->\nafter\n"},
		string(kernels): {"## Tensile\n\n| family |", "| Cijk | 0 of 9 | 0 of 9 |", "## libggml-hip\n", "| mul | 1 of 3 |", "of its own: `__amd_rocclr_copyBuffer`.\n"},
	} {
		for _, part := range parts {
			if !strings.Contains(text, part) {
				t.Errorf("there is no %q in\n%s", part, text)
			}
		}
	}
	if strings.Contains(string(page), "old") || strings.Contains(string(kernels), "damaged") {
		t.Errorf("the old numbers or a changed kernel are there:\n%s%s", page, kernels)
	}
	if again, err := replaceNumbers(page, numbers); err != nil || !bytes.Equal(again, page) {
		t.Errorf("the same numbers change the page: %v", err)
	}
	for _, text := range []string{"", numbersBegin, numbersEnd + numbersBegin} {
		if got, err := replaceNumbers([]byte(text), numbers); err == nil {
			t.Errorf("%q has a place for the numbers: %q", text, got)
		}
	}
}

// TestEmulateHasAPlaceForItsNumbers checks the documentation.
func TestEmulateHasAPlaceForItsNumbers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("../..", filepath.FromSlash(emulatedPage)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replaceNumbers(text, nil); err != nil {
		t.Error(err)
	}
}
