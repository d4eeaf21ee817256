package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

func TestGPUTable(t *testing.T) {
	var b strings.Builder
	err := printGPUs(&b, []gpu.Device{
		{PCI: "0000:03:00.0", Target: "gfx1100", Name: "RX 7900 XTX", VRAMTotal: 24 << 30, VRAMUsed: 6 << 30, Visible: true, Sensors: gpu.Sensors{EdgeCelsius: 41, PowerWatts: 31.4}},
		{PCI: "0000:18:00.0", Target: "gfx1036", Name: "Raphael", Integrated: true, VRAMTotal: 512 << 20, VRAMUsed: 1, UnusableReason: "hidden by HIP_VISIBLE_DEVICES in the environment", Masked: "HIP_VISIBLE_DEVICES", Vulkan: &gpu.Vulkan{}},
		{PCI: "0000:0b:00.0", Target: "gfx1030", Name: "RX 6800", VRAMTotal: 16 << 30, Visible: true, Vulkan: &gpu.Vulkan{}},
		{PCI: "0000:0c:00.0", Target: "gfx1030", Name: "RX 6800", VRAMTotal: 16 << 30, Visible: true},
		{Name: "llvmpipe", Integrated: true, VRAMTotal: 16 << 30, Vulkan: &gpu.Vulkan{Software: true, Unused: "it computes on the CPU"}},
	}, []gfx.Target{gfx.GFX1100})
	want := `DEVICE        TARGET   NAME         KIND        MEMORY IN USE           FREE      TOTAL     NOW          USABLE
0000:03:00.0  gfx1100  RX 7900 XTX  discrete    [#####...............]  18.0 GiB  24.0 GiB  41 °C, 31 W  HIP
0000:18:00.0  gfx1036  Raphael      integrated  [#...................]  512 MiB   512 MiB                no: hidden by HIP_VISIBLE_DEVICES in the environment
0000:0b:00.0  gfx1030  RX 6800      discrete    [....................]  16.0 GiB  16.0 GiB               Vulkan
0000:0c:00.0  gfx1030  RX 6800      discrete    [....................]  16.0 GiB  16.0 GiB               no: the bundle has no code for gfx1030, and no Vulkan driver offers it
vulkan0                llvmpipe     software    [....................]  16.0 GiB  16.0 GiB               no: it computes on the CPU; set GGML_VK_VISIBLE_DEVICES to use it all the same
`
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s", err, cmp.Diff(want, b.String()))
	}
	for _, c := range []struct {
		used, total uint64
		want        int
	}{{0, 10, 0}, {1, 1 << 40, 1}, {5, 10, 10}, {10, 10, 20}, {11, 10, 20}, {1, 0, 0}} {
		if got := strings.Count(usageBar(c.used, c.total), "#"); got != c.want {
			t.Errorf("%d of %d: %d steps, want %d", c.used, c.total, got, c.want)
		}
	}
}
