package build

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/build/settings"
)

func TestMissingPackages(t *testing.T) {
	debian := &settings.Settings{Toolchain: "debian"}
	image := &settings.Settings{Toolchain: "debian", MmdebstrapImage: "image"}
	base := &settings.Settings{Toolchain: "debian", BaseImage: "image"}
	amd := &settings.Settings{Toolchain: "amd"}
	for _, tc := range []struct {
		name      string
		settings  *settings.Settings
		programs  []program
		installed []string
		want      []string
	}{
		{"lint needs nothing", debian, nil, nil, nil},
		{"a build with Debian's packages", debian, buildPrograms, nil, []string{"git", "mmdebstrap", "debian-archive-keyring"}},
		{"mmdebstrap installed", debian, buildPrograms, []string{"git", "mmdebstrap"}, nil},
		{"mmdebstrap in an image", image, buildPrograms, []string{"git"}, nil},
		{"a base image", base, buildPrograms, []string{"git"}, nil},
		{"AMD's image", amd, buildPrograms, []string{"git"}, nil},
		{
			"tests without pip", debian, testPrograms,
			[]string{"zstd", "tar", "gcc", "mkfs.ext4", "mkfs.btrfs", "losetup", "openssl", "gpgv", "mmdebstrap", "python3", "chromium", "promtool", "llvm-objdump-22", lavapipe},
			[]string{"python3-pip"},
		},
		{
			"tests without mmdebstrap, which they need with any settings", image, testPrograms,
			[]string{"zstd", "tar", "gcc", "mkfs.ext4", "mkfs.btrfs", "losetup", "openssl", "gpgv", "python3", "pip3", "chromium", "promtool", "llvm-objdump-22", lavapipe},
			[]string{"mmdebstrap", "debian-archive-keyring"},
		},
		{"a file of a package", debian, []program{{lavapipe, "mesa-vulkan-drivers", nil}}, nil, []string{"mesa-vulkan-drivers"}},
		{"two programs of a package", debian, []program{{"mount", "mount", nil}, {"losetup", "mount", nil}}, nil, []string{"mount"}},
	} {
		if got := missingPackages(tc.programs, tc.settings, func(name string) bool { return slices.Contains(tc.installed, name) }); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// A program is in PATH, a file has a path, which may be a pattern.
func TestIsInstalled(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"driver_icd.x86_64.json", "prog"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	for name, want := range map[string]bool{
		"prog": true, "gone": false, filepath.Join(dir, "driver_icd*.json"): true, filepath.Join(dir, "other_icd*.json"): false, filepath.Join(dir, "["): false,
	} {
		if got := isInstalled(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
