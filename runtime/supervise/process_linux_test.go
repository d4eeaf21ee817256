package supervise

import (
	"os"
	"path"
	"slices"
	"testing"
)

// A process that was reaped counts as exiting, one that runs does not.
func TestProcessIsExiting(t *testing.T) {
	p := &process{pid: os.Getpid()}
	if p.isExiting() {
		t.Error("this process is reported as exiting")
	}
	if p.reaped = true; !p.isExiting() {
		t.Error("a reaped process is not reported as exiting")
	}
}

const (
	mountV1 = "32 25 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:14 - cgroup cgroup rw,memory\n" +
		"33 25 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
	mountV2 = "26 22 0:23 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestOOMCounters(t *testing.T) {
	for name, tt := range map[string]struct {
		groups, mounts string
		want           []string
	}{
		"v2 service":        {"0::/system.slice/go-rocm.service\n", mountV2, []string{"/sys/fs/cgroup/system.slice/go-rocm.service/memory.events"}},
		"v2 container":      {"0::/\n", mountV2, []string{"/sys/fs/cgroup/memory.events"}},
		"v1 service":        {"9:memory:/system.slice/go-rocm.service\n4:cpu,cpuacct:/\n", mountV1, []string{"/sys/fs/cgroup/memory/system.slice/go-rocm.service/memory.oom_control"}},
		"v1 container":      {"9:memory:/docker/abc\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", []string{"/sys/fs/cgroup/memory/memory.oom_control"}},
		"below a mount":     {"9:memory:/docker/abc/inner\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", []string{"/sys/fs/cgroup/memory/inner/memory.oom_control"}},
		"another's mount":   {"9:memory:/docker/abcd\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", nil},
		"both":              {"9:memory:/a\n0::/b\n", mountV1 + mountV2, []string{"/sys/fs/cgroup/memory/a/memory.oom_control", "/sys/fs/cgroup/b/memory.events"}},
		"outside namespace": {"0::/../other\n", mountV2, nil},
		"nothing mounted":   {"0::/a\n", "", nil},
		"empty cgroup file": {"", mountV1 + mountV2, nil},
		"torn":              {"0::\n9:memory\n", "32 25 0:29\n- cgroup2\n", nil},
	} {
		if got := oomCounters(tt.groups, tt.mounts); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzOOMCounters(f *testing.F) {
	f.Add("0::/a\n9:memory:/b\n", mountV1+mountV2)
	f.Add("9:memory:/docker/abc\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
	f.Fuzz(func(t *testing.T, groups, mounts string) {
		for _, name := range oomCounters(groups, mounts) {
			if base := path.Base(name); base != "memory.events" && base != "memory.oom_control" {
				t.Errorf("%q", name)
			}
		}
	})
}
