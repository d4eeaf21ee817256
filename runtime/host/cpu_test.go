package host_test

import (
	"maps"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/host"
)

func TestReadCPUs(t *testing.T) {
	// Four cores with two threads each.
	topology := map[string]string{}
	for cpu, siblings := range []string{"11", "22", "44", "88", "11", "22", "44", "88"} {
		topology["sys/devices/system/cpu/cpu"+string(rune('0'+cpu))+"/topology/thread_siblings"] = siblings + "\n"
	}
	for name, tt := range map[string]struct {
		files   map[string]string
		want    host.CPUs
		threads int
	}{
		"no limit":           {map[string]string{"proc/self/status": "Cpus_allowed_list:\t0-7\n"}, host.CPUs{Cores: 4, Allowed: 4}, 0},
		"affinity":           {map[string]string{"proc/self/status": "Name:\tx\nCpus_allowed_list:\t1-2,5\n"}, host.CPUs{Cores: 4, Allowed: 2}, 2},
		"one core's threads": {map[string]string{"proc/self/status": "Cpus_allowed_list:\t0,4\n"}, host.CPUs{Cores: 4, Allowed: 1}, 1},
		"nonsense":           {map[string]string{"proc/self/status": "Cpus_allowed_list:\ta-b,,7-\n", "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1 2 3\n"}, host.CPUs{Cores: 4}, 0},
		"quota of version 2": {map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
		}, host.CPUs{Cores: 4, Quota: 1.5, LimitedBy: "/sys/fs/cgroup/a/cpu.max"}, 2},
		"quota of version 1": {map[string]string{
			"proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n",
			"sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us":  "50000\n",
			"sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":           "-1\n",
			"sys/fs/cgroup/cpu/cpu.cfs_period_us":          "100000\n",
		}, host.CPUs{Cores: 4, Quota: 0.5, LimitedBy: "/sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us"}, 1},
		"quota above the machine": {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "1600000 100000\n"}, host.CPUs{Cores: 4, Quota: 16, LimitedBy: "/sys/fs/cgroup/cpu.max"}, 0},
	} {
		files := maps.Clone(topology)
		maps.Copy(files, tt.files)
		got := host.ReadCPUs(tree(t, files))
		if got != tt.want || got.Threads() != tt.threads {
			t.Errorf("%s: %+v, %d threads; want %+v, %d threads", name, got, got.Threads(), tt.want, tt.threads)
		}
	}
	if got := host.ReadCPUs(t.TempDir()); got != (host.CPUs{}) || got.Threads() != 0 {
		t.Errorf("nothing to read: %+v", got)
	}
}
