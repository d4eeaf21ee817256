//go:build linux && amd64

package machine_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// sysRoot writes the kernel's files of a machine with 64 GiB of memory.
func sysRoot(t *testing.T, name string) string {
	t.Helper()
	return sysroot.Write(t, name, map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\n"})
}

// warnings returns a logger and what it has logged at the level of warnings.
func warnings() (*slog.Logger, *bytes.Buffer) {
	var logged bytes.Buffer
	return slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn})), &logged
}

// detect reads a machine and the bundle of $GOROCM_BUNDLE.
func detect(t *testing.T, root string) *machine.Machine {
	t.Helper()
	m, err := machine.Detect("", machine.Config{SysRoot: root})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestDetectReadsTheMachine(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{})
	for name, want := range map[string]struct {
		names []string
		code  bool
		warns string
	}{
		"none":                {nil, false, ""},
		"nvidia":              {[]string{"NVIDIA GPU 10de:2684"}, true, ""},
		"two-cards":           {[]string{"AMD Radeon RX 7900 XTX", "AMD Radeon RX 7800 XT"}, true, ""},
		"container-no-render": {[]string{"AMD Radeon RX 7900 XTX"}, true, ""},
		"malformed":           {[]string{"AMD Radeon RX 7900 XTX", "AMD Radeon RX 7800 XT"}, true, "some GPUs could not be read"},
	} {
		if want.code {
			fakebundle.AddGPUModule(t)
		}
		log, logged := warnings()
		m, err := machine.Detect("", machine.Config{SysRoot: sysRoot(t, name), Log: log})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, d := range m.Devices {
			got = append(got, d.Name)
		}
		if name != "malformed" && !slices.Equal(got, want.names) || len(got) != len(want.names) {
			t.Errorf("%s: GPUs %q, want %q", name, got, want.names)
		}
		if m.HostMemory != 64<<30 {
			t.Errorf("%s: %d bytes of memory, want 64 GiB", name, m.HostMemory)
		}
		if said := logged.String(); !strings.Contains(said, want.warns) || want.warns == "" && said != "" {
			t.Errorf("%s: logged %q, want %q", name, said, want.warns)
		}
	}
}

// A plan without a bundle is possible: it says that nothing has code for a GPU.
func TestDetectWithoutABundle(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	root := sysRoot(t, "rx7900xtx")
	empty := t.TempDir()
	log, logged := warnings()
	m, err := machine.Detect(empty, machine.Config{SysRoot: root, Log: log})
	if err != nil || m.Targets != nil || !strings.Contains(logged.String(), "planning without a bundle") {
		t.Fatalf("%+v, %v; logged %s", m, err, logged)
	}
	p, err := m.Plan(model, plan.Options{})
	if err != nil || p.GPU {
		t.Errorf("planned for a GPU that no bundle has code for: %+v, %v", p, err)
	}
	damaged := filepath.Join(empty, "damaged.tar.zst")
	if err := os.WriteFile(damaged, []byte("no pack"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := machine.Detect(damaged, machine.Config{SysRoot: root}); err == nil || errors.Is(err, locate.ErrNoBundle) {
		t.Errorf("a damaged bundle: %v; want its error", err)
	}
}

// Refresh reads the free memory again and keeps the bundle's targets.
func TestRefreshReadsFreeMemory(t *testing.T) {
	fakebundle.Use(t, fakellama.Script{})
	fakebundle.AddGPUModule(t)
	root := sysRoot(t, "rx7900xtx")
	m := detect(t, root)
	const used = "sys/class/drm/renderD128/device/mem_info_vram_used"
	if err := os.WriteFile(filepath.Join(root, used), []byte(strconv.FormatUint(20<<30, 10)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "proc/meminfo"), []byte("MemTotal: 1048576 kB\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := m.Devices[0].VRAMUsed
	m.Refresh()
	if got := m.Devices[0].VRAMUsed; got != 20<<30 || before == got || m.HostMemory != 1<<30 {
		t.Errorf("%d bytes used, %d before; %d bytes of memory", got, before, m.HostMemory)
	}
	if want := []gfx.Target{gfx.GFX1100, gfx.GFX1101}; !slices.Equal(m.Targets, want) {
		t.Errorf("targets %v, want %v", m.Targets, want)
	}
}

// A plan for a card that is not there does not change the plans of the machine.
func TestSimulateReplacesTheCards(t *testing.T) {
	model := fakebundle.Use(t, fakellama.Script{})
	t.Setenv("ROCR_VISIBLE_DEVICES", "") // would hide a real card
	root := sysRoot(t, "none")
	m := detect(t, root)
	if err := m.Simulate(gfx.GFX1101, 16<<30); err != nil {
		t.Fatal(err)
	}
	p, err := m.Plan(model, plan.Options{})
	if err != nil || !p.Fits || p.Devices[0].Total != 16<<30 {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := detect(t, root).Plan(model, plan.Options{}); err != nil || p.GPU {
		t.Errorf("this machine: %+v, %v", p, err)
	}
	fakebundle.AddGPUModule(t)
	for target, want := range map[gfx.Target]error{"gfx90a": plan.ErrInvalidOption, gfx.GFX1100: nil, "gfx1102": nil} {
		if err := detect(t, root).Simulate(target, 64<<30); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", target, err, want)
		}
	}
}

// The sums of this machine, whichever it is, agree with its list of GPUs.
func TestMemoryOfThisMachine(t *testing.T) {
	devices, err := machine.Devices()
	if err != nil {
		t.Fatal(err)
	}
	var want uint64
	for _, d := range devices {
		if d.Visible {
			want += d.VRAMTotal
			if d.Integrated {
				want += d.GTTTotal
			}
		}
	}
	total, err := machine.TotalMemory()
	if err != nil || total != want {
		t.Errorf("total %d, want %d: %v", total, want, err)
	}
	if active, err := machine.UsedMemory(); err != nil || active > total {
		t.Errorf("active %d of %d: %v", active, total, err)
	}
}
