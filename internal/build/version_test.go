package build

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/deb"
)

// A version that apt would sort differently than Go is rejected before anything is
// built.
func TestVersionRejectsWhatAptSortsDifferently(t *testing.T) {
	s, _ := newSession(t)
	root := t.TempDir()
	for version, ok := range map[string]bool{"0.1.0": true, "v0.2.0-rc.1": true, "0.1.0-beta2": false, "0.1.0-alpha-2": false} {
		s.Settings.Version = version
		got, err := s.Version(root)
		if ok != (err == nil) || !ok && (!errors.Is(err, deb.ErrOptions) || !strings.Contains(err.Error(), "GOROCM_VERSION")) {
			t.Errorf("%s: %q, %v", version, got, err)
		}
	}
	s.Settings.Version = ""
	if err := os.WriteFile(filepath.Join(root, "CHANGELOG.md"), []byte("# Changes\n\n## 0.1.0-beta2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Version(root); !errors.Is(err, deb.ErrOptions) || !strings.Contains(err.Error(), "CHANGELOG.md") {
		t.Errorf("CHANGELOG.md: %q, %v", got, err)
	}
}
