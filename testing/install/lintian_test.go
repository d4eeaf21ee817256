//go:build install

package install_test

import (
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/install"
)

// TestInstallLintian has Debian's own checker read the packages. It ends with a
// failure on an error or a warning that no reasoned override answers.
func TestInstallLintian(t *testing.T) {
	t.Parallel()
	c, err := engine(t).Start(t.Context(), install.Machine{Suite: "bookworm", Include: []string{"lintian"}})
	if err != nil {
		t.Fatal(err)
	}
	b := adopt(t, c)
	debs := b.bring(packages(t))
	b.sh("useradd --create-home checker")
	// Once: it takes the whole bundle apart, which is most of the time.
	if out := b.as("checker", "lintian --profile debian --fail-on error,warning --show-overrides "+debs); !strings.Contains(out, "O: go-rocm") {
		t.Errorf("lintian saw none of the overrides, so it may have seen nothing:\n%s", out)
	}
}
