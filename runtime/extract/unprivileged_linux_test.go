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

// unprivileged are the tests that an ordinary user takes another way through
// than root: in a user namespace of its own (true), or against permissions that
// root passes over.
var unprivileged = map[string]bool{ //nolint:gochecknoglobals // a constant of the tests
	"TestFault05DiskFull":          true,
	"TestFault05NoInodes":          true,
	"TestFault05NoInodeAtAll":      true,
	"TestFault05OneTargetFits":     true,
	"TestFault11NoExec":            true,
	"TestFault12ReadOnly":          true,
	"TestFault12OneTargetReadOnly": true,
	"TestFault13Planted":           false,
	"TestFault14Mode":              false,
	"TestFault17NoHome":            false,
}

// TestUnprivileged runs them once more as a user without any rights, since CI
// runs as root and would never go those ways.
func TestUnprivileged(t *testing.T) {
	if !ofMachine() {
		t.Skip("this user is one: the tests go these ways by themselves")
	}
	const user = 424243
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
	for name := range unprivileged {
		names = append(names, name)
	}
	cmd := exec.CommandContext(t.Context(), copyTo(t, self, filepath.Join(dir, "test")), "-test.v", "-test.run=^("+strings.Join(names, "|")+")$")
	cmd.Dir = home
	// Where namespaces are forbidden that is a failure and no reason to skip.
	cmd.Env = append(os.Environ(), "CI=true", "HOME="+home, "TMPDIR="+home, torture.Env+"=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("as user %d: %v\n%s", user, err, out)
	}
	said := string(out)
	for name, inNamespace := range unprivileged {
		_, own, found := strings.Cut(said, "=== RUN   "+name+"\n")
		own, _, ended := strings.Cut(own, "\n--- PASS: "+name+" ")
		if !found || !ended {
			t.Errorf("%s did not run to its end as user %d:\n%s", name, user, said)
		} else if inNamespace != strings.Contains(own, "in a user namespace:") {
			t.Errorf("%s went the wrong way as user %d:\n%s", name, user, own)
		}
	}
}
