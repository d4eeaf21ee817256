package build

import (
	"slices"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/settings"
)

func TestMissing(t *testing.T) {
	debian := &settings.Settings{Toolchain: "debian"}
	image := &settings.Settings{Toolchain: "debian", Mmdebstrap: "image"}
	given := &settings.Settings{Toolchain: "debian", BaseImage: "image"}
	amd := &settings.Settings{Toolchain: "amd"}
	for _, tc := range []struct {
		name     string
		settings *settings.Settings
		programs []program
		there    []string
		want     []string
	}{
		{"lint asks for nothing", debian, nil, nil, nil},
		{"a build of Debian's packages", debian, buildPrograms, nil, []string{"git", "mmdebstrap", "debian-archive-keyring"}},
		{"one with mmdebstrap", debian, buildPrograms, []string{"git", "mmdebstrap"}, nil},
		{"one with mmdebstrap in an image", image, buildPrograms, []string{"git"}, nil},
		{"one in a given image", given, buildPrograms, []string{"git"}, nil},
		{"one in AMD's image", amd, buildPrograms, []string{"git"}, nil},
		{
			"tests without pip", debian, testPrograms,
			[]string{"zstd", "tar", "gcc", "mkfs.ext4", "mkfs.btrfs", "losetup", "openssl", "gpgv", "mmdebstrap", "python3"},
			[]string{"python3-pip"},
		},
		{
			"tests without mmdebstrap, which they need whatever the build does", image, testPrograms,
			[]string{"zstd", "tar", "gcc", "mkfs.ext4", "mkfs.btrfs", "losetup", "openssl", "gpgv", "python3", "pip3"},
			[]string{"mmdebstrap", "debian-archive-keyring"},
		},
		{"two programs of a package", debian, []program{{"mount", "mount", nil}, {"losetup", "mount", nil}}, nil, []string{"mount"}},
	} {
		if got := missing(tc.programs, tc.settings, func(name string) bool { return slices.Contains(tc.there, name) }); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
