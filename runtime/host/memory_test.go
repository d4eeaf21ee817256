package host_test

import (
	"os"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/host"
)

func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestReadMemory(t *testing.T) {
	const info = "MemTotal:       65536000 kB\nMemFree: 1 kB\nMemAvailable:   32768000 kB\nHugePages_Total:       0\n"
	const total, available = 65536000 << 10, 32768000 << 10
	for name, c := range map[string]struct {
		files  map[string]string
		want   host.Memory
		usable uint64
	}{
		"no limit":       {map[string]string{"proc/meminfo": info}, host.Memory{Total: total, Available: available}, total},
		"nothing known":  {nil, host.Memory{}, 0},
		"nonsense":       {map[string]string{"proc/meminfo": "MemTotal: many kB\nMemAvailable:\n"}, host.Memory{}, 0},
		"too large":      {map[string]string{"proc/meminfo": "MemTotal: 18446744073709551615 kB\n"}, host.Memory{}, 0},
		"malformed line": {map[string]string{"proc/meminfo": info, "proc/self/cgroup": "0\n1:cpu:/x\n"}, host.Memory{Total: total, Available: available}, total},
		"version 2": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/system.slice/go-rocm.service\n",
			"sys/fs/cgroup/system.slice/go-rocm.service/memory.max": "max\n",
			"sys/fs/cgroup/system.slice/memory.max":                 "8589934592\n",
		}, host.Memory{Total: total, Available: available, Limit: 8 << 30, LimitedBy: "/sys/fs/cgroup/system.slice/memory.max"}, 8 << 30},
		"the lowest counts": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "4294967296\n",
			"sys/fs/cgroup/a/memory.max":   "8589934592\n",
		}, host.Memory{Total: total, Available: available, Limit: 4 << 30, LimitedBy: "/sys/fs/cgroup/a/b/memory.max"}, 4 << 30},
		"version 1": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "5:cpuset,memory:/docker/x\n0::/\n",
			"sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": "2147483648\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712\n",
		}, host.Memory{Total: total, Available: available, Limit: 2 << 30, LimitedBy: "/sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes"}, 2 << 30},
		"a limit above the machine": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1099511627776\n",
		}, host.Memory{Total: total, Available: available, Limit: 1 << 40, LimitedBy: "/sys/fs/cgroup/memory.max"}, total},
		"outside the tree": {map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/x/memory.max": "1073741824\n",
		}, host.Memory{Total: total, Available: available, Limit: 1 << 30, LimitedBy: "/sys/fs/cgroup/x/memory.max"}, 1 << 30},
	} {
		t.Run(name, func(t *testing.T) {
			got := host.ReadMemory(tree(t, c.files))
			if got != c.want || got.Usable() != c.usable {
				t.Errorf("%+v, usable %d; want %+v, usable %d", got, got.Usable(), c.want, c.usable)
			}
		})
	}
}

func FuzzReadMemory(f *testing.F) {
	f.Add("MemTotal: 1 kB\n", "0::/a\n", "max\n")
	f.Add("", "5:memory:/../..\n", "1\n")
	f.Fuzz(func(t *testing.T, info, groups, limit string) {
		m := host.ReadMemory(tree(t, map[string]string{
			"proc/meminfo": info, "proc/self/cgroup": groups, "sys/fs/cgroup/memory.max": limit, "sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
		}))
		if (m.Limit == 0) != (m.LimitedBy == "") || (m.Total > 0 && m.Usable() > m.Total) {
			t.Errorf("%+v", m)
		}
	})
}
