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
)

// program is a command of this machine and the Debian package that has it.
type program struct{ name, pkg string }

// buildPrograms are what a build calls on this machine; everything else is in
// containers. testPrograms are what the tests call beside that.
var (
	buildPrograms = []program{{"git", "git"}, {"mmdebstrap", "mmdebstrap"}}
	testPrograms  = []program{
		{"zstd", "zstd"},
		{"tar", "tar"},
		{"gcc", "gcc"},
		{"mkfs.ext4", "e2fsprogs"},
		{"mkfs.btrfs", "btrfs-progs"},
		{"losetup", "mount"},
		{"openssl", "openssl"},
		{"gpgv", "gpgv"},
		{"mmdebstrap", "mmdebstrap"},
		{"python3", "python3-pip"},
	}
)

// prepare makes sure that programs are there. What is missing is installed
// where we may, else the error says what to type.
func (s *Session) prepare(ctx context.Context, programs []program) error {
	var missing []string
	for _, p := range programs {
		if p.name == "mmdebstrap" && (s.Settings.Mmdebstrap != "" || s.Settings.BaseImage != "" || s.Settings.Toolchain == "amd") {
			continue // the build has another way
		}
		if _, err := exec.LookPath(p.name); err != nil && !slices.Contains(missing, p.pkg) {
			missing = append(missing, p.pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if slices.Contains(missing, "mmdebstrap") {
		missing = append(missing, "debian-archive-keyring")
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
