package apt_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

func TestNewest(t *testing.T) {
	dir := t.TempDir()
	if version, digest, err := apt.NewestVersion(dir, "stable", "thing"); version+digest != "" || err != nil {
		t.Errorf("of nothing: %q %q %v", version, digest, err)
	}
	old, young := newDeb(t, "thing", "1.9.0~rc.1-1", "one"), newDeb(t, "thing", "1.10.0-1", "two")
	publish(t, options(dir, nil, first, young, old, newDeb(t, "thing", "1.9.0-2", "three"), newDeb(t, "other", "2.0-1", "four")))
	b, err := os.ReadFile(young)
	if err != nil {
		t.Fatal(err)
	}
	if version, digest, err := apt.NewestVersion(dir, "stable", "thing"); version != "1.10.0-1" || digest != hash(b) || err != nil {
		t.Errorf("got %q %q %v", version, digest, err)
	}
	if version, _, err := apt.NewestVersion(dir, "stable", "none"); version != "" || err != nil {
		t.Errorf("of a package that is not there: %q %v", version, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "dists/stable/main/binary-amd64/Packages"), []byte("no field\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := apt.NewestVersion(dir, "stable", "thing"); !errors.Is(err, apt.ErrRepository) {
		t.Errorf("of a broken index: %v", err)
	}
}
