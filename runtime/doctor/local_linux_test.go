package doctor_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/runtime/doctor"
)

// TestLocal: the real sources work, whatever their content.
func TestLocal(t *testing.T) {
	m := doctor.Local()
	for _, f := range append(m.CheckSystem(), m.CheckGPU()...) {
		if f.Check == "kernel" && f.Detail == "" || f.Status == doctor.Failure {
			t.Errorf("%+v", f)
		}
	}
	d, err := m.Disk(t.TempDir())
	if err != nil || d.ReadOnly || d.Free == 0 {
		t.Errorf("%+v, %v", d, err)
	}
	if _, err := m.Disk(t.TempDir() + "/none"); err == nil {
		t.Error("a missing directory has a disk")
	}
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	want := unix.Geteuid() != 0 // root writes everywhere
	if d, err := m.Disk(closed); err != nil || d.ReadOnly != want {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestDiskFlags: statfs agrees with the mount table, for each mount that is not
// covered by another.
func TestDiskFlags(t *testing.T) {
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 3 {
			flags[f[1]] = "," + f[3] + ","
		}
	}
	m, looked := doctor.Local(), 0
	for dir, want := range flags {
		info, err := os.Stat(dir)
		if err != nil || !info.IsDir() {
			continue
		}
		d, err := m.Disk(dir)
		if err != nil {
			continue // vanished, or hidden from this user
		}
		looked++
		if d.NoExec != strings.Contains(want, ",noexec,") || (strings.Contains(want, ",ro,") && !d.ReadOnly) {
			t.Errorf("%s: %+v, mounted %s", dir, d, want)
		}
	}
	if looked == 0 {
		t.Error("no mount was looked at")
	}
}
