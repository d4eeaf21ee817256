package gpu_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// helperRoot makes the test binary print the devices below it and exit.
const helperRoot = "GPU_TEST_ROOT"

func TestMain(m *testing.M) {
	if root := os.Getenv(helperRoot); root != "" {
		devices, err := gpu.NewFS(root).Devices()
		if err == nil {
			err = json.NewEncoder(os.Stdout).Encode(devices)
		}
		if err != nil {
			println(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// asNobody returns the devices below root, read by a process without privileges: as
// another user if the test runs as root, otherwise as the same user.
func asNobody(t *testing.T, root string) []gpu.Device {
	t.Helper()
	dir, err := os.MkdirTemp("", "gputest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	// Other users may search neither go test's directories nor t.TempDir's.
	exe := filepath.Join(dir, "helper")
	copyFile(t, "/proc/self/exe", exe, 0o755)
	if err := os.CopyFS(filepath.Join(dir, "root"), os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{dir, filepath.Join(dir, "root")} {
		if err := os.Chmod(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, closed := range []string{"dev/kfd", "sys/class/kfd/kfd/topology/nodes/2/properties"} {
		if err := os.Chmod(filepath.Join(dir, "root", closed), 0); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = []string{helperRoot + "=" + filepath.Join(dir, "root")}
	cmd.Dir = dir
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var devices []gpu.Device
	if err := json.Unmarshal(out, &devices); err != nil {
		t.Fatal(err)
	}
	return devices
}

func copyFile(t *testing.T, from, to string, mode os.FileMode) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, mode)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestInaccessibleDevices: device files without permission, and a node that the
// control group hides, yield devices that are listed as not usable, with the remedy.
func TestInaccessibleDevices(t *testing.T) {
	devices := asNobody(t, sysroot.Write(t, "two-cards", nil))
	if len(devices) != 2 {
		t.Fatalf("devices %+v", devices)
	}
	if d := devices[0]; d.Visible || !strings.Contains(d.UnusableReason, "no permission for /dev/kfd") {
		t.Errorf("first: visible %v, why %q", d.Visible, d.UnusableReason)
	}
	if d := devices[1]; d.Visible || d.Index != -1 || !strings.Contains(d.UnusableReason, "--device") {
		t.Errorf("second: visible %v, index %d, why %q", d.Visible, d.Index, d.UnusableReason)
	}
}
