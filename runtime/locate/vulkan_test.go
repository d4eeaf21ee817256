//go:build linux && amd64

package locate_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// TestVulkanDevices: the numbers for the mask, which llama-server's own list lacks, are
// found by asking for each.
func TestVulkanDevices(t *testing.T) {
	const (
		mib      = 1 << 20
		llvmpipe = "llvmpipe (LLVM 19.1.7, 256 bits)"
		radv     = "AMD Radeon RX 7900 XTX (RADV NAVI31)"
	)
	one := "0"
	for name, c := range map[string]struct {
		devices []fakellama.VulkanDevice
		mask    *string
		want    []gpu.Vulkan
	}{
		"none":            {nil, nil, nil},
		"a card":          {[]fakellama.VulkanDevice{{Description: radv, MiB: 24560}}, nil, []gpu.Vulkan{{Index: 0, Description: radv, Total: 24560 * mib, Free: 24560 * mib}}},
		"software alone":  {[]fakellama.VulkanDevice{{Description: llvmpipe, MiB: 32000, Software: true}}, nil, []gpu.Vulkan{{Index: 0, Description: llvmpipe, Total: 32000 * mib, Free: 32000 * mib, Software: true, Unused: "it computes on the CPU"}}},
		"software, asked": {[]fakellama.VulkanDevice{{Description: llvmpipe, MiB: 32000, Software: true}}, &one, []gpu.Vulkan{{Index: 0, Description: llvmpipe, Total: 32000 * mib, Free: 32000 * mib, Software: true, Requested: true}}},
		"two equal cards": {
			[]fakellama.VulkanDevice{{Description: radv, MiB: 24560}, {Description: llvmpipe, MiB: 32000, Software: true}, {Description: radv, MiB: 24560}},
			nil,
			[]gpu.Vulkan{
				{Index: 0, Description: radv, Total: 24560 * mib, Free: 24560 * mib},
				{Index: 1, Description: llvmpipe, Total: 32000 * mib, Free: 32000 * mib, Software: true, Unused: "it computes on the CPU"},
				{Index: 2, Description: radv, Total: 24560 * mib, Free: 24560 * mib},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			fakebundle.Use(t, fakellama.Script{Vulkan: c.devices})
			b, err := locate.Find("")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			got, err := b.Vulkan(t.Context(), locate.VulkanQuery{Mask: c.mask})
			if d := cmp.Diff(c.want, got); d != "" || err != nil {
				t.Errorf("%v (-want +got):\n%s", err, d)
			}
		})
	}
}

// TestBrokenDriverBesideAnother: a driver that cannot be loaded is a warning where another one
// offers a device.
func TestBrokenDriverBesideAnother(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: "RX 6800 (RADV NAVI21)", MiB: 16384}}})
	server := filepath.Join(os.Getenv(locate.EnvBundle), "llama-server")
	if err := os.Remove(server); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(server, []byte("#!/bin/sh\necho '[Vulkan Loader] ERROR:          /gone.so: cannot open shared object file' >&2\nexec "+os.Args[0]+` "$@"`+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	b, err := locate.Find("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	var log bytes.Buffer
	found, err := b.Vulkan(t.Context(), locate.VulkanQuery{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil || len(found) != 1 || !strings.Contains(log.String(), "/gone.so: cannot open shared object file") {
		t.Errorf("%v, %v; the log is %q", found, err, &log)
	}
}

// TestMaskOfAnAbsentDevice: a mask with a number that is no device's is an error that shows
// the mask. An empty mask is a choice.
func TestMaskOfAnAbsentDevice(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: "RX 6800 (RADV NAVI21)", MiB: 16384}}})
	b, err := locate.Find("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	for mask, wrong := range map[string]bool{"7": true, "0": false, "": false, ",": false} {
		found, err := b.Vulkan(t.Context(), locate.VulkanQuery{Mask: &mask})
		if (err != nil) != wrong || err != nil && !strings.Contains(err.Error(), `GGML_VK_VISIBLE_DEVICES is "7": the Vulkan drivers do not offer all of these devices`) {
			t.Errorf("mask %q: %v, %v", mask, found, err)
		}
	}
}

// TestVulkanDriverThatCannotBeUsed: a driver that crashes, or that the loader rejects,
// is an error with the cause.
func TestVulkanDriverThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		script fakellama.Script
		before string // of the shell, before the server
		want   string
	}{
		"it crashes":                  {fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: "x", MiB: 1, Crash: true}}}, "", "crashed while it asked the driver"},
		"it needs a newer libc":       {fakellama.Script{}, "echo 'ERROR: /usr/lib/libvulkan_radeon.so: version `GLIBC_2.99'\"'\"' not found' >&2", "GLIBC_2.99"},
		"its error is cut by the log": {fakellama.Script{}, "printf '%s\\n' 'ERROR:  0.00.034 E ggml_cuda_init: no device' '/usr/lib/libx.so: not found' 'ERROR | DRIVER: loader_icd_scan: Failed loading library /usr/lib/libx.so' 'ERROR:  /usr/lib/libx.so: version GLIBC_2.98 not found' >&2", "can be loaded: /usr/lib/libx.so: version GLIBC_2.98 not found"},
	} {
		t.Run(name, func(t *testing.T) {
			fakebundle.Use(t, c.script)
			server := filepath.Join(os.Getenv(locate.EnvBundle), "llama-server")
			if err := os.Remove(server); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(server, []byte("#!/bin/sh\n"+c.before+"\nexec "+os.Args[0]+` "$@"`+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			b, err := locate.Find("")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = b.Close() }()
			if _, err := b.Vulkan(t.Context(), locate.VulkanQuery{}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
