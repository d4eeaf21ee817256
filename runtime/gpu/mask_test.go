package gpu_test

import (
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// TestMask follows the rules of the ROCm runtime (amd_filter_device.cpp in
// ROCR, rocdevice.cpp in the HIP runtime).
func TestMask(t *testing.T) {
	const (
		xtx = "GPU-b85e402c0fb3757f"
		xt  = "GPU-398a3f843a146602"
	)
	for _, c := range []struct {
		machine string
		environ string // blank-separated
		order   []int
		why     string // of the first hidden device
	}{
		{"two-cards", "", []int{0, 1}, ""},
		{"two-cards", "ROCR_VISIBLE_DEVICES=1", []int{1}, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=1,0", []int{1, 0}, ""},
		{"two-cards", "ROCR_VISIBLE_DEVICES=" + xt, []int{1}, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=gpu-B85E", []int{0}, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=GPU-", nil, "ROCR_VISIBLE_DEVICES"}, // shorter than one digit
		{"two-cards", "ROCR_VISIBLE_DEVICES=" + xtx + "0", nil, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=", nil, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=0,7,1", []int{0}, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=0,0,1", []int{0}, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=-1", nil, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=1 HIP_VISIBLE_DEVICES=0", []int{1}, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "ROCR_VISIBLE_DEVICES=1 HIP_VISIBLE_DEVICES=1", nil, "ROCR_VISIBLE_DEVICES"},
		{"two-cards", "HIP_VISIBLE_DEVICES=1", []int{1}, "HIP_VISIBLE_DEVICES"},
		{"two-cards", "HIP_VISIBLE_DEVICES= CUDA_VISIBLE_DEVICES=0", []int{0}, "CUDA_VISIBLE_DEVICES"},
		{"two-cards", "HIP_VISIBLE_DEVICES=1 CUDA_VISIBLE_DEVICES=0", []int{1}, "HIP_VISIBLE_DEVICES"},
		{"two-cards", "GPU_DEVICE_ORDINAL=1", []int{1}, "GPU_DEVICE_ORDINAL"},
		{"two-cards", "HIP_VISIBLE_DEVICES=0 HIP_VISIBLE_DEVICES=1", []int{1}, "HIP_VISIBLE_DEVICES"},
		{"two-cards", "HIP_VISIBLE_DEVICES=" + xt, []int{1}, "HIP_VISIBLE_DEVICES"},
		{"dgpu-raphael", "ROCR_VISIBLE_DEVICES=1", []int{1}, "ROCR_VISIBLE_DEVICES"},
		{"partitions", "ROCR_VISIBLE_DEVICES=GPU-11111111", nil, "ROCR_VISIBLE_DEVICES"}, // names two
		{"partitions", "ROCR_VISIBLE_DEVICES=GPU-1111111111111102", []int{1}, "ROCR_VISIBLE_DEVICES"},
	} {
		t.Run(c.machine+" "+c.environ, func(t *testing.T) {
			devices, err := gpu.NewFS(sysroot.Write(t, c.machine, nil)).Devices()
			if err != nil {
				t.Fatal(err)
			}
			m := gpu.NewMask(strings.Fields(c.environ))
			if got := m.HIPOrder(devices); !slices.Equal(got, c.order) {
				t.Errorf("order %v, want %v", got, c.order)
			}
			why := ""
			for i, d := range m.Apply(devices) {
				if d.Visible != slices.Contains(c.order, i) {
					t.Errorf("device %d: visible %v", i, d.Visible)
				}
				if !d.Visible && why == "" {
					why = d.UnusableReason
				}
			}
			if c.why == "" && why != "" || !strings.Contains(why, c.why) {
				t.Errorf("hidden because %q, want %q", why, c.why)
			}
			if m.Empty() != (c.environ == "") {
				t.Errorf("Empty is %v", m.Empty())
			}
		})
	}
}

// TestVisibleEnv: the variables show exactly the chosen devices, in order.
func TestVisibleEnv(t *testing.T) {
	for _, c := range []struct {
		machine string
		pick    []int
		want    []string
	}{
		{"two-cards", []int{1}, []string{"ROCR_VISIBLE_DEVICES=GPU-398a3f843a146602", "HIP_VISIBLE_DEVICES=0"}},
		{"two-cards", []int{1, 0}, []string{"ROCR_VISIBLE_DEVICES=GPU-398a3f843a146602,GPU-b85e402c0fb3757f", "HIP_VISIBLE_DEVICES=0,1"}},
		{"dgpu-raphael", []int{1}, []string{"ROCR_VISIBLE_DEVICES=1", "HIP_VISIBLE_DEVICES=0"}},
	} {
		devices, err := gpu.NewFS(sysroot.Write(t, c.machine, nil)).Devices()
		if err != nil {
			t.Fatal(err)
		}
		var chosen []gpu.Device
		for _, i := range c.pick {
			chosen = append(chosen, devices[i])
		}
		got := gpu.VisibleEnv(chosen)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %v, want %v", c.machine, c.pick, got, c.want)
		}
		if order := gpu.NewMask(got).HIPOrder(devices); !slices.Equal(order, c.pick) {
			t.Errorf("%s: the runtime would take %v for %v", c.machine, order, c.pick)
		}
	}
}
