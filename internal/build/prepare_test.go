package build

import (
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
			[]string{"zstd", "tar", "gcc", "mkfs.ext4", "mkfs.btrfs", "losetup", "openssl", "gpgv", "mmdebstrap", "python3"},
			[]string{"python3-pip"},
		},
		{
			"tests without mmdebstrap, which they need with any settings", image, testPrograms,
			[]string{"zstd", "tar", "gcc", "mkfs.ext4", "mkfs.btrfs", "losetup", "openssl", "gpgv", "python3", "pip3"},
			[]string{"mmdebstrap", "debian-archive-keyring"},
		},
		{"two programs of a package", debian, []program{{"mount", "mount", nil}, {"losetup", "mount", nil}}, nil, []string{"mount"}},
	} {
		if got := missingPackages(tc.programs, tc.settings, func(name string) bool { return slices.Contains(tc.installed, name) }); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
