package extract

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/torture"
)

// unprivilegedTests are the tests that behave differently for an ordinary user: in a user
// namespace (true), or with permissions that root ignores.
var unprivilegedTests = map[string]bool{ //nolint:gochecknoglobals // a constant of the tests
	"TestFault05_DiskFull":                 true,
	"TestFault05_NoInodes":                 true,
	"TestFault05_NoInodeLeft":              true,
	"TestFault05_OneTargetFits":            true,
	"TestFault11_NoExec":                   true,
	"TestFault12_ReadOnlyCache":            true,
	"TestFault12_ReadOnlyCacheOfOneTarget": true,
	"TestFault13_PlantedFiles":             false,
	"TestFault14_WrongMode":                false,
	"TestFault17_NoHome":                   false,
}

// The test runs unprivilegedTests again as a user without privileges, since CI runs as
// root.
func TestFaultsWithoutPrivileges(t *testing.T) {
	if !isMachineRoot() {
		t.Skip("this user has no privileges, so the tests themselves cover this")
	}
	if testing.Short() {
		t.Skip("it runs a third of the package again; run mage test")
	}
	const user = 424243
	for _, runs := range []bool{false, true} {
		newBundle(t, runs) // the user cannot make it in the directory of the packs
	}
	dir, err := os.MkdirTemp("", "extract-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeAll(t, dir) })
	home := filepath.Join(dir, "home")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(home, 0o700), os.Chown(home, user, user)); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range unprivilegedTests {
		names = append(names, name)
	}
	cmd := exec.CommandContext(t.Context(), copyTo(t, self, filepath.Join(dir, "test")), "-test.v", "-test.run=^("+strings.Join(names, "|")+")$")
	cmd.Dir = home
	// If user namespaces are forbidden, the tests must fail and not be skipped.
	cmd.Env = append(os.Environ(), "CI=true", "HOME="+home, "TMPDIR="+home, torture.Env+"=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as user %d: %v\n%s", user, err, out)
	}
	log := string(out)
	for name, inNamespace := range unprivilegedTests {
		_, own, found := strings.Cut(log, "=== RUN   "+name+"\n")
		own, _, ended := strings.Cut(own, "\n--- PASS: "+name+" ")
		if !found || !ended {
			t.Errorf("%s did not pass as user %d:\n%s", name, user, log)
		} else if inNamespace != strings.Contains(own, "in a user namespace:") {
			t.Errorf("%s used a namespace or not, contrary to the list, as user %d:\n%s", name, user, own)
		}
	}
}
