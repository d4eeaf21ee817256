package gpu

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// writeTree writes files below a new root.
func writeTree(t *testing.T, files map[string]string) FS {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return NewFS(root)
}

// TestProcessMemory has a process with two files of one client, one of another card,
// and a count of KFD that is larger.
func TestProcessMemory(t *testing.T) {
	t.Parallel()
	const client = "pos:\t0\ndrm-driver:\tamdgpu\ndrm-client-id:\t7\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t2048 KiB\n"
	f := writeTree(t, map[string]string{
		"proc/42/fdinfo/3":                          client,
		"proc/42/fdinfo/4":                          client,
		"proc/42/fdinfo/5":                          "drm-client-id:\t8\ndrm-pdev:\t0000:0a:00.0\ndrm-memory-vram:\t1 MiB\n",
		"proc/42/fdinfo/6":                          "pos:\t0\n",
		"proc/42/fdinfo/11":                         "drm-client-id:\t9\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t1048576\n",
		"sys/class/kfd/kfd/topology/nodes/2/gpu_id": "1234",
		"sys/class/kfd/kfd/proc/42/vram_1234":       "9000000",
	})
	devices := []Device{{Node: 1, PCI: "0000:03:00.0"}, {Node: 2, PCI: "0000:0a:00.0"}}
	got := f.ProcessMemory(42, devices)
	if len(got) != 2 || got["0000:03:00.0"] != 3<<20 || got["0000:0a:00.0"] != 9000000 {
		t.Errorf("the process uses %v", got)
	}
	if got := f.ProcessMemory(43, devices); len(got) != 0 {
		t.Errorf("a process that is gone uses %v", got)
	}
}

func TestParseMemory(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"12": 12, "3 KiB": 3 << 10, "5 MiB": 5 << 20, "5 GiB": 0, "x KiB": 0, "-1": 0, "18446744073709551615 MiB": 0,
	} {
		if got := parseMemory(text); got != want {
			t.Errorf("%q is %d, want %d", text, got, want)
		}
	}
}

// metricsTable returns a table of a revision with a status.
func metricsTable(format byte, status uint64) string {
	b := make([]byte, 120)
	b[0], b[2], b[3] = 120, format, 3
	binary.LittleEndian.PutUint64(b[112:], status)
	return string(b)
}

func TestThrottled(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		table string
		want  []string
	}{
		"nothing":                 {metricsTable(1, 0), nil},
		"the hot spot":            {metricsTable(1, 1<<36), []string{ThrottleTemperature}},
		"power and current":       {metricsTable(1, 1|1<<17), []string{ThrottlePower, ThrottleCurrent}},
		"not reported":            {metricsTable(1, ^uint64(0)), nil},
		"a table of an APU":       {metricsTable(2, 1), nil},
		"a table that is cut off": {metricsTable(1, 1<<36)[:119], nil},
		// White space at the end of a table is a part of it.
		"a status that ends with white space": {metricsTable(1, 0x20<<56), []string{ThrottleOther}},
	} {
		if got := writeTree(t, map[string]string{"d/gpu_metrics": tt.table}).throttled("d"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}

func TestSuspendedCardIsNotWoken(t *testing.T) {
	t.Parallel()
	f := writeTree(t, map[string]string{"d/power/runtime_status": "suspended\n", "d/gpu_busy_percent": "7"})
	if s := f.readSensors("d"); !s.Suspended || s.BusyPercent != 0 {
		t.Errorf("the sensors of a suspended card: %+v", s)
	}
}
