package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// program is a program that must be installed, and its Debian package. A name with a
// slash is a file of the package, as a pattern of path.Match.
type program struct {
	name, pkg string
	// unneeded reports whether a build with these settings does not use the program;
	// nil means that every build uses it.
	unneeded func(*settings.Settings) bool
}

// lavapipe is the manifest of Mesa's Vulkan driver that computes on the CPU.
const lavapipe = "/usr/share/vulkan/icd.d/lvp_icd*.json"

// buildPrograms are the programs that a build runs outside containers. testPrograms
// are those that the tests run: mmdebstrap with any settings, for the systems of the
// install tests.
var (
	buildPrograms = []program{{"git", "git", nil}, {"mmdebstrap", "mmdebstrap", func(s *settings.Settings) bool {
		return s.MmdebstrapImage != "" || !s.Page && (s.BaseImage != "" || s.Toolchain == "amd")
	}}}
	testPrograms = []program{
		{"zstd", "zstd", nil},
		{"tar", "tar", nil},
		{"gcc", "gcc", nil},
		{"mkfs.ext4", "e2fsprogs", nil},
		{"mkfs.btrfs", "btrfs-progs", nil},
		{"losetup", "mount", nil},
		{"openssl", "openssl", nil},
		{"gpgv", "gpgv", nil},
		{"mmdebstrap", "mmdebstrap", nil},
		{"python3", "python3", nil},
		{"chromium", "chromium", nil},
		{"pip3", "python3-pip", nil},
		{"promtool", "prometheus", nil},
		{"llvm-objdump-22", "llvm-22", nil},
		{lavapipe, "mesa-vulkan-drivers", nil},
	}
)

// missingPackages returns the Debian packages of the programs that are needed and not
// installed, each once.
func missingPackages(programs []program, s *settings.Settings, installed func(name string) bool) []string {
	var packages []string
	for _, p := range programs {
		needed := p.unneeded == nil || !p.unneeded(s)
		if needed && !installed(p.name) && !slices.Contains(packages, p.pkg) {
			packages = append(packages, p.pkg)
		}
	}
	if slices.Contains(packages, "mmdebstrap") {
		packages = append(packages, "debian-archive-keyring")
	}
	return packages
}

// isInstalled reports whether a program is in PATH, or whether files match a pattern.
func isInstalled(name string) bool {
	if strings.Contains(name, "/") {
		files, err := filepath.Glob(name)
		return err == nil && len(files) > 0
	}
	_, err := exec.LookPath(name)
	return err == nil
}

// prepare checks that programs are installed. It installs missing ones if it may;
// otherwise the error contains the command that does.
func (s *Session) prepare(ctx context.Context, programs []program) error {
	missing := missingPackages(programs, s.Settings, isInstalled)
	if len(missing) == 0 {
		return nil
	}
	install := "apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || !s.confirm("Install "+strings.Join(missing, ", ")+"?") {
		return fmt.Errorf("programs are missing, of the Debian packages %s; run as root: apt-get update && %s", strings.Join(missing, ", "), install)
	}
	for _, argv := range [][]string{{"apt-get", "update"}, strings.Fields(install)} {
		if err := s.printf("prepare: %s", strings.Join(argv, " ")); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := procgroup.Output(ctx, cmd, time.Minute); err != nil { // dpkg must not be killed
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	return nil
}

// confirm asks the user. In CI the answer is yes, without a terminal it is no.
func (s *Session) confirm(question string) bool {
	if s.Settings.CI || s.Settings.Yes {
		return true
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return false
	}
	fmt.Fprint(os.Stderr, question+" [y/N] ")
	var answer string
	if _, err := fmt.Fscanln(os.Stdin, &answer); err != nil {
		return false
	}
	return strings.EqualFold(answer, "y") || strings.EqualFold(answer, "yes")
}
