package gpu_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestDevicesOfMachines compares everything that is read from each machine with a
// golden file.
func TestDevicesOfMachines(t *testing.T) {
	for _, name := range sysroot.Names() {
		t.Run(name, func(t *testing.T) {
			root := sysroot.Write(t, name, nil)
			devices, err := gpu.NewFS(root).Devices()
			got := struct {
				Devices []gpu.Device `json:"devices"`
				Errors  []string     `json:"errors"`
			}{Devices: devices}
			if err != nil {
				got.Errors = strings.Split(strings.ReplaceAll(err.Error(), root, ""), "\n")
			}
			b, err := json.MarshalIndent(got, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, '\n')
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(b)); d != "" {
				t.Errorf("devices differ from %s (-want +got):\n%s", golden, d)
			}
		})
	}
}

// TestDeviceFacts checks the facts that matter, independent of the golden files.
func TestDeviceFacts(t *testing.T) {
	for _, c := range []struct {
		machine    string
		name       []string
		target     []string
		integrated []bool
		visible    []bool
		uuid       []string
	}{
		{"rx7900xtx", []string{"AMD Radeon RX 7900 XTX"}, []string{"gfx1100"}, []bool{false}, []bool{true}, []string{"GPU-b85e402c0fb3757f"}},
		{"rx7800xt", []string{"AMD Radeon RX 7800 XT"}, []string{"gfx1101"}, []bool{false}, []bool{true}, []string{"GPU-398a3f843a146602"}},
		{"two-cards", []string{"AMD Radeon RX 7900 XTX", "AMD Radeon RX 7800 XT"}, []string{"gfx1100", "gfx1101"}, []bool{false, false}, []bool{true, true}, []string{"GPU-b85e402c0fb3757f", "GPU-398a3f843a146602"}},
		{"dgpu-raphael", []string{"AMD Radeon RX 7900 XTX", "AMD GPU 1002:164e"}, []string{"gfx1100", "gfx1036"}, []bool{false, true}, []bool{true, true}, []string{"GPU-b85e402c0fb3757f", ""}},
		{"raphael", []string{"AMD GPU 1002:164e"}, []string{"gfx1036"}, []bool{true}, []bool{true}, []string{""}},
		{"container-no-render", []string{"AMD Radeon RX 7900 XTX"}, []string{"gfx1100"}, []bool{false}, []bool{false}, []string{"GPU-b85e402c0fb3757f"}},
		{"container-no-kfd", []string{"AMD Radeon RX 7900 XTX"}, []string{"gfx1100"}, []bool{false}, []bool{false}, []string{"GPU-b85e402c0fb3757f"}},
		{"nvidia", nil, nil, nil, nil, nil},
		{"none", nil, nil, nil, nil, nil},
	} {
		t.Run(c.machine, func(t *testing.T) {
			devices, err := gpu.NewFS(sysroot.Write(t, c.machine, nil)).Devices()
			if len(c.name) == 0 {
				if !errors.Is(err, gpu.ErrNoDriver) || devices != nil {
					t.Fatalf("got %v, %v; want ErrNoDriver", devices, err)
				}
				return
			}
			if err != nil || len(devices) != len(c.name) {
				t.Fatalf("%d devices, %v; want %d", len(devices), err, len(c.name))
			}
			for i, d := range devices {
				if d.Name != c.name[i] || d.Target.String() != c.target[i] || d.Integrated != c.integrated[i] || d.UUID() != c.uuid[i] {
					t.Errorf("device %d: %q %s integrated %v %q", i, d.Name, d.Target, d.Integrated, d.UUID())
				}
				if d.Visible != c.visible[i] || (d.UnusableReason == "") != d.Visible {
					t.Errorf("device %d: visible %v, why %q", i, d.Visible, d.UnusableReason)
				}
			}
		})
	}
}

func TestMemoryCounters(t *testing.T) {
	devices, err := gpu.NewFS(sysroot.Write(t, "rx7900xtx", nil)).Devices()
	if err != nil {
		t.Fatal(err)
	}
	d := devices[0]
	if d.VRAMTotal != 25753026560 || d.VRAMFree() != 25753026560-1306214400 {
		t.Errorf("total %d, free %d", d.VRAMTotal, d.VRAMFree())
	}
	// Of 1306214400 bytes a ROCm process uses 256 MiB; HIP sees only those.
	if d.ComputeUsed != 256<<20 || d.NonComputeUsed() != 1306214400-256<<20 {
		t.Errorf("compute %d, hidden %d", d.ComputeUsed, d.NonComputeUsed())
	}
	if s := d.Sensors; s.EdgeCelsius != 41 || s.JunctionCelsius != 50 || s.MemoryCelsius != 56 || s.PowerWatts != 31 || s.PowerCapWatts != 339 || s.ShaderMHz != 94 {
		t.Errorf("sensors %+v", s)
	}
	for _, tc := range []struct {
		total, used, compute uint64
		free, hidden         uint64
	}{
		{10, 7, 3, 3, 4},
		{7, 7, 7, 0, 0},
		{5, 7, 0, 0, 7},  // the counters are not read at one moment:
		{10, 3, 9, 7, 0}, // neither difference falls below zero
		{0, 3, 9, 0, 0},
	} {
		d := gpu.Device{VRAMTotal: tc.total, VRAMUsed: tc.used, ComputeUsed: tc.compute}
		if d.VRAMFree() != tc.free || d.NonComputeUsed() != tc.hidden {
			t.Errorf("%+v: free %d, hidden %d", tc, d.VRAMFree(), d.NonComputeUsed())
		}
	}
}

// TestMalformedNodeIsLeftOut: a malformed node yields an error and leaves the others.
func TestMalformedNodeIsLeftOut(t *testing.T) {
	devices, err := gpu.NewFS(sysroot.Write(t, "malformed", nil)).Devices()
	if len(devices) != 2 || devices[0].Node != 1 || devices[1].Node != 4 {
		t.Fatalf("devices %+v", devices)
	}
	if devices[0].Index != 0 || devices[1].Index != 1 {
		t.Errorf("indices %d, %d", devices[0].Index, devices[1].Index)
	}
	var bad *gpu.NodeError
	if !errors.As(err, &bad) || bad.Node != 2 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// TestNameSources: libdrm's list takes precedence over the built-in names.
func TestNameSources(t *testing.T) {
	root := sysroot.Write(t, "rx7900xtx", nil)
	list := filepath.Join(root, "usr/share/libdrm/amdgpu.ids")
	if err := os.MkdirAll(filepath.Dir(list), 0o755); err != nil {
		t.Fatal(err)
	}
	text := "# list\n1.0.0\n744C,\tC7,\tanother\n744C,\tC8,\tRadeon, from the list\n"
	if err := os.WriteFile(list, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	devices, err := gpu.NewFS(root).Devices()
	if err != nil || devices[0].Name != "Radeon, from the list" {
		t.Errorf("name %q, %v", devices[0].Name, err)
	}
}

// TestReassignedRenderNode: a render node that now belongs to another card is not
// used for this one.
func TestReassignedRenderNode(t *testing.T) {
	root := sysroot.Write(t, "rx7900xtx", nil)
	uevent := filepath.Join(root, "sys/class/drm/renderD128/device/uevent")
	if err := os.WriteFile(uevent, []byte("PCI_SLOT_NAME=0000:2a:00.0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	devices, err := gpu.NewFS(root).Devices()
	if err != nil {
		t.Fatal(err)
	}
	if d := devices[0]; d.MemoryKnown || d.VRAMUsed != 0 || d.VRAMTotal != 25753026560 {
		t.Errorf("took the memory of another card: %+v", d)
	}
}
