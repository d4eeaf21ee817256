package build

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/settings"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

func TestSumInto(t *testing.T) {
	const keys = "../../pkg/release/testdata/minisign"
	public, err := os.ReadFile(filepath.Join(keys, "plain.pub"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := release.ParseMinisignKey(public)
	if err != nil {
		t.Fatal(err)
	}
	s := &Session{Settings: &settings.Settings{}}
	d := &delivery{dir: t.TempDir(), version: "1.2.3"}
	put(t, filepath.Join(d.dir, "go-rocm"), "program")
	if err := s.sumInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	if _, err := release.Verify(t.Context(), d.dir, release.Keys{Minisign: key}); !errors.Is(err, release.ErrUnsigned) {
		t.Errorf("without a key: %v", err)
	}
	s.Settings.Minisign = filepath.Join(keys, "plain.key")
	if err := s.sumInto(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	r, err := release.Verify(t.Context(), d.dir, release.Keys{Minisign: key})
	if err != nil || len(r.Signatures) != 1 {
		t.Errorf("with a key: %+v, %v", r, err)
	}
	for name, path := range map[string]string{"no file": "/no/such", "no key": filepath.Join(keys, "message")} {
		s.Settings.Minisign = path
		if _, err := s.minisigner(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
