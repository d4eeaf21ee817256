//go:build install

package install_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/install"
)

// TestInstallLintian checks the packages with Debian's lintian. An error or a warning
// without a documented override is a failure.
func TestInstallLintian(t *testing.T) {
	t.Parallel()
	c, err := engine(t).Start(t.Context(), install.Machine{Suite: "bookworm", Include: []string{"lintian"}})
	if err != nil {
		t.Fatal(err)
	}
	b := adopt(t, c)
	debs := b.copyIn(packages(t))
	b.sh("useradd --create-home checker")
	// It runs once, because it unpacks the whole bundle. The test judges the output, because
	// lintian fails on overridden tags if it shows them.
	out := b.as("checker", "lintian --profile debian --fail-on none --show-overrides "+debs)
	overridden := 0
	for line := range strings.Lines(out) {
		switch line[0] {
		case 'E', 'W':
			t.Error(strings.TrimSpace(line))
		case 'O':
			overridden++
		}
	}
	if overridden == 0 {
		t.Errorf("lintian saw none of the overrides, so it may have seen nothing:\n%s", out)
	}
}
