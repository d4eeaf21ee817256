//go:build e2e

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/hsa"
)

// asMachine runs a program in a mount namespace of its own, where /sys and /dev are those of the directory $1. What is
// about processors, control groups and ordinary devices stays as it is.
const asMachine = `set -eu
root=$1
shift
mount --make-rprivate /
for dir in devices/system/cpu devices/system/node fs/cgroup; do
	[ -d /sys/$dir ] || continue
	mkdir -p "$root/sys/$dir"
	mount --rbind /sys/$dir "$root/sys/$dir"
done
for file in null zero full random urandom; do
	: >"$root/dev/$file"
	mount --bind /dev/$file "$root/dev/$file"
done
mkdir -p "$root/dev/shm"
mount --rbind "$root/sys" /sys
mount --rbind "$root/dev" /dev
exec "$@"`

// runCommand runs the shipped command with the rig as its bundle, on the machine with its cards: what it reads of /sys
// and /dev is the kernel's on a machine with these cards.
func (r *rig) runCommand(t *testing.T, args ...string) (out, said string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"-c", asMachine, "sh", r.machineOf(t), cli(t)}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.Env = append(os.Environ(), envBundle+"="+r.Dir)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// TestEmulatedCardRunsTheCommand runs `go-rocm run` on a machine with two cards, of which the second one is asked for. The
// command finds the cards in /sys, plans, hides the first card, starts llama-server, and streams an answer, which is the
// CPU's. Then no process of it is left.
func TestEmulatedCardRunsTheCommand(t *testing.T) {
	r := newRig(t, "gfx1100,gfx1101")
	r.asOwnBuild(t)
	report, path := fileOf(t, hsa.EnvReport), tiny(t, "llama-spm", 1)
	out, said, err := r.runCommand(t, "gpus")
	for _, text := range []string{"gfx1100  AMD Radeon RX 7900 XTX", "gfx1101  AMD Radeon RX 7800 XT", "HIP"} {
		if err != nil || !strings.Contains(out, text) {
			t.Errorf("gpus has no %s: %v\n%s%s", text, err, out, said)
		}
	}
	answer := func(backend string, more ...string) string {
		t.Helper()
		args := append([]string{"run", "--backend", backend, "--context", "512", "--slots", "1", "--raw", "-p", shortPrompt, "-n", "4", "--temperature", "0", "--stats"}, more...)
		out, said, err := r.runCommand(t, append(args, path)...)
		if err != nil || strings.TrimSpace(out) == "" {
			t.Fatalf("with %s: %v\n%s%s", backend, err, out, said)
		}
		t.Logf("with %s: %q, %s", backend, out, said)
		return out
	}
	cpu := answer("cpu")
	if lines, err := os.ReadFile(report); err == nil && len(lines) > 0 {
		t.Errorf("the CPU ran kernels of a card:\n%s", lines)
	}
	if card := answer("hip", "--device", "GPU-398a3f843a146602", "--require-gpu"); card != cpu {
		t.Errorf("the card answers %q, and the CPU %q", card, cpu)
	}
	ranOnlyOn(t, report, "gfx1101")
	if left := usersOf(t, filepath.Join(r.Dir, "llama-server")); len(left) > 0 {
		t.Errorf("these processes run: %v", left)
	}
}

// usersOf returns the processes whose command line has a path.
func usersOf(t *testing.T, path string) (out []string) {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range lines {
		if line, err := os.ReadFile(name); err == nil && bytes.Contains(line, []byte(path)) { // it may have ended
			out = append(out, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}
