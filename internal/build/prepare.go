package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"forge.lthn.ai/core/go-rocm/internal/procgroup"
	"forge.lthn.ai/core/go-rocm/internal/settings"
)

// program is a command of this machine and the Debian package that has it.
type program struct {
	name, pkg string
	// instead says of settings that they have the build do without it; nil: none.
	instead func(*settings.Settings) bool
}

// buildPrograms are what a build calls on this machine; everything else is in
// containers. testPrograms are what the tests call beside that: mmdebstrap in any
// case, for the machines to install on.
var (
	buildPrograms = []program{{"git", "git", nil}, {"mmdebstrap", "mmdebstrap", func(s *settings.Settings) bool {
		return s.Mmdebstrap != "" || s.BaseImage != "" || s.Toolchain == "amd"
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
		{"pip3", "python3-pip", nil},
	}
)

// missing gives the Debian packages of the programs that are needed and not there,
// each once.
func missing(programs []program, s *settings.Settings, there func(name string) bool) []string {
	var packages []string
	for _, p := range programs {
		needed := p.instead == nil || !p.instead(s)
		if needed && !there(p.name) && !slices.Contains(packages, p.pkg) {
			packages = append(packages, p.pkg)
		}
	}
	if slices.Contains(packages, "mmdebstrap") {
		packages = append(packages, "debian-archive-keyring")
	}
	return packages
}

// prepare makes sure that programs are there. What is missing is installed
// where we may, else the error says what to type.
func (s *Session) prepare(ctx context.Context, programs []program) error {
	missing := missing(programs, s.Settings, func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	})
	if len(missing) == 0 {
		return nil
	}
	install := "apt-get install -y --no-install-recommends " + strings.Join(missing, " ")
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || !s.agree("Install "+strings.Join(missing, ", ")+"?") {
		return fmt.Errorf("missing on this machine: %s; as root, run: apt-get update && %s", strings.Join(missing, ", "), install)
	}
	for _, argv := range [][]string{{"apt-get", "update"}, strings.Fields(install)} {
		if err := s.say("prepare: %s", strings.Join(argv, " ")); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := procgroup.Output(ctx, cmd, time.Minute); err != nil { // dpkg is not to be cut off
			return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
		}
	}
	return nil
}

// agree asks a person; in CI the answer is yes, and without a terminal no.
func (s *Session) agree(question string) bool {
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
