package build

import (
	"regexp"
	"strings"
	"testing"
)

// TestEmulateRunsItsTests checks that the target's pattern matches every end-to-end test that uses the emulated card or
// can run everything on it, and that there are some.
func TestEmulateRunsItsTests(t *testing.T) {
	pattern, found := regexp.MustCompile(emulateTests), 0
	for name, body := range testFunctions(t, "../..", "testing/e2e") {
		uses := strings.Contains(body, emulateVariable) || strings.Contains(body, "survey.") || strings.Contains(body, "emulate(")
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
