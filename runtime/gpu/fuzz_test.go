package gpu

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzNode reads a node from arbitrary bytes: no panic, and sane values for every
// device that is returned.
func FuzzNode(f *testing.F) {
	f.Add([]byte("simd_count 192\ngfx_target_version 110000\nlocation_id 768\ndrm_render_minor 128\nunique_id 13285126508775699839\n"), []byte("25753026560\n"), []byte{120, 0, 1, 3})
	f.Add([]byte("simd_count 4\ngfx_target_version 100306\ncpu_cores_count 16\n"), []byte("-1"), []byte{1, 2, 3})
	f.Add([]byte("simd_count 99999999999999999999\n"), []byte(""), []byte{})
	f.Add([]byte("simd_count 1\ngfx_target_version 4294967295\ndrm_render_minor 18446744073709551615\n"), []byte("0x10"), []byte{0, 0, 9, 9})
	f.Add([]byte("simd_count 1 2\n"), []byte("1\n2"), []byte(strings.Repeat("x", 100)))
	f.Add([]byte("\x00\xff simd_count\n\n\n"), []byte("\n"), []byte{0, 0, 2, 0})
	root := f.TempDir()
	node := filepath.Join(root, nodesDir, "1")
	device := filepath.Join(root, "sys/bus/pci/devices/0000:03:00.0")
	for _, d := range []string{node, device} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, props, number, metrics []byte) {
		for path, b := range map[string][]byte{
			filepath.Join(node, "properties"):            props,
			filepath.Join(device, "mem_info_vram_total"): number,
			filepath.Join(device, "mem_info_vram_used"):  number,
			filepath.Join(device, "uevent"):              number,
			filepath.Join(device, "gpu_metrics"):         metrics,
		} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		devices, err := NewFS(root).Devices()
		if len(devices) > 1 || (len(devices) == 1 && err != nil) {
			t.Fatalf("%d devices and %v from one node", len(devices), err)
		}
		for _, d := range devices {
			if d.Target == "" || d.Index != 0 || d.VRAMFree() > d.VRAMTotal || (d.RenderNode != "" && !strings.HasPrefix(d.RenderNode, "/dev/dri/renderD")) {
				t.Fatalf("device %+v", d)
			}
		}
	})
}

// FuzzProperties: accepted properties can be written and parsed again.
func FuzzProperties(f *testing.F) {
	f.Add([]byte("cpu_cores_count 32\nsimd_count 0\n"))
	f.Add([]byte("a 1\na 2"))
	f.Add([]byte("a -1"))
	f.Add([]byte("a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parseProperties(b)
		if err != nil {
			return
		}
		if lines := bytes.Count(b, []byte("\n")) + 1; len(p) > lines {
			t.Fatalf("%d names from %d lines", len(p), lines)
		}
		_ = p.pciAddress()
	})
}

// FuzzMask: any mask selects from any devices without repetition.
func FuzzMask(f *testing.F) {
	f.Add("0,1", "GPU-1", true)
	f.Add("", "", true)
	f.Add(",,", "-1,0", true)
	f.Add("GPU-ffffffffffffffff", "1", false)
	f.Fuzz(func(t *testing.T, rocr, hip string, set bool) {
		environ := []string{EnvHIP + "=" + hip}
		if set {
			environ = append(environ, EnvROCR+"="+rocr)
		}
		devices := []Device{{Index: 0, UniqueID: 0x1234, Visible: true}, {Index: -1}, {Index: 1, Visible: true}}
		m := NewMask(environ)
		seen := map[int]bool{}
		for _, i := range m.HIPOrder(devices) {
			if i < 0 || i >= len(devices) || devices[i].Index < 0 || seen[i] {
				t.Fatalf("order %v", m.HIPOrder(devices))
			}
			seen[i] = true
		}
		for i, d := range m.Apply(devices) {
			if d.Visible != (seen[i] && devices[i].Visible) {
				t.Fatalf("device %d: visible %v, in order %v", i, d.Visible, seen[i])
			}
		}
	})
}
