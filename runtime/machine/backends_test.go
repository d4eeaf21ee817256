//go:build linux && amd64

package machine_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// reasons returns the reasons of a plan, nil without one.
func reasons(p *plan.Plan) []string {
	if p == nil {
		return nil
	}
	return append([]string{string(p.Backend)}, p.Reasons...)
}

// radv is the manifest of a Vulkan driver.
const radv = "usr/share/vulkan/icd.d/radeon_icd.x86_64.json"

// withVulkan adds a Vulkan module to the bundle, and a driver to the machine whose root
// it returns, unless driver is false.
func withVulkan(t *testing.T, name string, driver bool) (root string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(os.Getenv(locate.EnvBundle), "libggml-vulkan.so"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\n", "proc/sys/kernel/osrelease": "6.12.0\n"}
	if driver {
		files[radv] = `{"ICD": {"api_version": "1.4.305", "library_path": "libvulkan_radeon.so"}}`
	}
	return sysroot.Write(t, name, files)
}

// A card that HIP cannot use runs with Vulkan, where a driver is installed; without one
// the plan, or the error, says what to install.
func TestPlanWithVulkan(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: "NVIDIA GeForce RTX 4090", MiB: 24564}}})
	t.Setenv("VK_DRIVER_FILES", "")
	m := detect(t, withVulkan(t, "nvidia", true))
	p, err := m.Plan(model, plan.Options{})
	if err != nil || p.Backend != plan.BackendVulkan || p.Devices[0].Place != "0000:01:00.0" {
		t.Fatalf("%q, %v", reasons(p), err)
	}
	m.Refresh() // which keeps what Vulkan reported
	if p, err := m.Plan(model, plan.Options{}); err != nil || p.Backend != plan.BackendVulkan {
		t.Errorf("after a refresh: %q, %v", reasons(p), err)
	}

	log, logged := warnings()
	without, err := machine.Detect("", machine.Config{SysRoot: withVulkan(t, "nvidia", false), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	p, err = without.Plan(model, plan.Options{})
	if err != nil || p.GPU || !strings.Contains(strings.Join(p.Reasons, "\n"), "install mesa-vulkan-drivers") || logged.Len() > 0 {
		t.Errorf("without a driver: %q, %v; logged %s", reasons(p), err, logged)
	}
	if _, err := without.Plan(model, plan.Options{Backend: plan.BackendVulkan}); !errors.Is(err, plan.ErrNoGPU) || !strings.Contains(err.Error(), "install mesa-vulkan-drivers") {
		t.Errorf("without a driver, as asked: %v", err)
	}
}

// writeManifest gives the bundle a manifest, so that it has a digest.
func writeManifest(t *testing.T) {
	t.Helper()
	dir := os.Getenv(locate.EnvBundle)
	server := filepath.Join(dir, "llama-server")
	if err := errors.Join(os.Remove(server), os.WriteFile(server, []byte("#!/bin/sh\nexec "+os.Args[0]+` "$@"`+"\n"), 0o700), os.Chmod(server, 0o755), os.Chmod(filepath.Join(dir, "libggml-vulkan.so"), 0o644)); err != nil {
		t.Fatal(err)
	}
	built, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-fake", Variant: "cpu", Flavour: bundle.FlavourSystem, Version: "v0", Entry: bundle.Entry{Program: "llama-server"},
	})
	if err == nil {
		err = bundle.WriteManifest(dir, built)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// What the drivers offer is cached for a bundle with a manifest, and the next plan does not
// open the bundle for it: that would take milliseconds.
func TestKnownVulkanOpensNoBundle(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: "NVIDIA GeForce RTX 4090", MiB: 24564}}})
	t.Setenv("VK_DRIVER_FILES", "")
	root, dir := withVulkan(t, "nvidia", true), os.Getenv(locate.EnvBundle)
	writeManifest(t)

	first, second, third := detect(t, root), detect(t, root), detect(t, root)
	if p, err := first.Plan(model, plan.Options{}); err != nil || p.Backend != plan.BackendVulkan {
		t.Fatalf("%q, %v", reasons(p), err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if p, err := second.Plan(model, plan.Options{}); err != nil || p.Backend != plan.BackendVulkan {
		t.Errorf("with a known answer and without the bundle: %q, %v", reasons(p), err)
	}
	t.Setenv("VK_DRIVER_FILES", "/another/driver.json") // an answer that is not known
	if p, err := third.Plan(model, plan.Options{}); err == nil && p.Backend == plan.BackendVulkan {
		t.Errorf("with another driver: %q", reasons(p))
	}
}

// plansAroundFailure plans the model, reports that the backend failed on the card, and plans
// again: in this process, and in another one.
func plansAroundFailure(t *testing.T, root, model, cause string, lasting bool) (first, again, elsewhere *plan.Plan) {
	t.Helper()
	_, f, err := machine.OpenModel(model)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	m := detect(t, root)
	if first, err = m.Plan(model, plan.Options{}); err != nil {
		t.Fatal(err)
	}
	m.Failed(first.Chosen, f, first.Backend, cause, lasting)
	if again, err = m.Plan(model, plan.Options{}); err != nil {
		t.Fatalf("lasting %v: %v", lasting, err)
	}
	if elsewhere, err = detect(t, root).Plan(model, plan.Options{}); err != nil {
		t.Fatalf("lasting %v, another process: %v", lasting, err)
	}
	return first, again, elsewhere
}

// What failed or was measured on a device that no kernel driver lists counts as that of a card.
func TestFailedDeviceWithoutAddress(t *testing.T) {
	for name, description := range map[string]string{
		"virtual":           "Virtio-GPU Venus (AMD Radeon RX 7900 XTX (RADV NAVI31))",
		"of a Windows host": "Microsoft Direct3D12 (NVIDIA GeForce RTX 4090)",
	} {
		t.Run(name, func(t *testing.T) {
			model := fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: description, MiB: 24560}}})
			root := withVulkan(t, "none", true)
			for _, lasting := range []bool{false, true} {
				first, again, elsewhere := plansAroundFailure(t, root, model, "the device was lost", lasting)
				if first.Backend != plan.BackendVulkan || first.Devices[0].Place != "vulkan0" {
					t.Fatalf("%q", reasons(first))
				}
				if again.GPU || !strings.Contains(strings.Join(again.Reasons, "\n"), "the device was lost") {
					t.Errorf("lasting %v: %q", lasting, reasons(again))
				}
				if elsewhere.GPU == lasting {
					t.Errorf("lasting %v, another process: %q", lasting, reasons(elsewhere))
				}
			}
		})
	}
}

// A cached answer of Vulkan's drivers says which devices there are, and not how much of their
// memory is free: it may be days old.
func TestKnownVulkanHasNoFreeMemory(t *testing.T) {
	d := fakellama.VulkanDevice{Description: "NVIDIA GeForce RTX 4090", MiB: 24564, FreeMiB: 1000}
	model := fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{d}})
	t.Setenv("VK_DRIVER_FILES", "")
	root := withVulkan(t, "nvidia", true)
	writeManifest(t)
	for _, free := range []uint64{1000, 24564} {
		p, err := detect(t, root).Plan(model, plan.Options{Backend: plan.BackendVulkan})
		if err != nil || p.Devices[0].Free != free*plan.MiB {
			t.Errorf("%q, %v, want %d MiB free", reasons(p), err, free)
		}
	}
}

// A backend that failed on a card is not planned again on this machine, nor, if the
// failure lasts, by another process.
func TestFailedBackend(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{{Description: "AMD Radeon RX 7900 XTX (RADV NAVI31)", MiB: 24560}}})
	fakebundle.AddGPUModule(t)
	root := withVulkan(t, "rx7900xtx", true)
	for _, lasting := range []bool{false, true} {
		first, again, elsewhere := plansAroundFailure(t, root, model, "gpu hang", lasting)
		if first.Backend != plan.BackendHIP {
			t.Fatalf("%q", reasons(first))
		}
		if again.Backend != plan.BackendVulkan || !strings.Contains(strings.Join(again.Reasons, "\n"), "HIP failed on this card: gpu hang") {
			t.Errorf("lasting %v: %q", lasting, reasons(again))
		}
		want := plan.BackendHIP
		if lasting {
			want = plan.BackendVulkan
		}
		if elsewhere.Backend != want {
			t.Errorf("lasting %v, another process: %q", lasting, reasons(elsewhere))
		}
		records, err := detect(t, root).Records()
		if err != nil || (len(records) == 1) != lasting {
			t.Errorf("lasting %v: records %+v, %v", lasting, records, err)
		}
	}
}
