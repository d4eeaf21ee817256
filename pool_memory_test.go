//go:build linux && amd64

package rocm_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// usedFile is a card's counter of used memory, that processes change.
type usedFile struct {
	t    *testing.T
	mu   sync.Mutex
	path string
	own  map[string]uint64
	base uint64
	peak uint64
}

// count lets a model take memory when its process is ready, and free it a while after
// its process has ended, as the driver does.
func (f *usedFile) count(name string, bytes uint64, m rocm.PoolModel) rocm.PoolModel {
	m.OnEvent = func(e supervise.Event) {
		switch {
		case e.To == supervise.Ready:
			f.set(name, bytes)
		case e.To.Final():
			time.AfterFunc(300*time.Millisecond, func() { f.set(name, 0) })
		}
	}
	return m
}

func (f *usedFile) set(name string, bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own[name] = bytes
	sum := f.base
	for _, n := range f.own {
		sum += n
	}
	f.peak = max(f.peak, sum)
	temporary := f.path + ".new"
	err := os.WriteFile(temporary, []byte(strconv.FormatUint(sum, 10)), 0o600)
	if err == nil {
		err = os.Rename(temporary, f.path)
	}
	if err != nil {
		f.t.Error(err)
	}
}

// needOf returns what a model needs on a card.
func needOf(t *testing.T, m rocm.PoolModel, root string) uint64 {
	t.Helper()
	s := m.Settings
	s.SysRoot = root
	p, err := rocm.Plan(m.Path, s)
	if err != nil || !p.Fits {
		t.Fatal(p, err)
	}
	return p.Devices[0].Used()
}

const cardTotal, cardPlace = 25753026560, "0000:03:00.0"

func TestPoolEvictsAndWaitsForTheMemory(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	fake.AddGPUModule(t)
	root := sysRoot(t, "rx7900xtx")
	models := poolModels(fake, "a", "b")
	need := needOf(t, models["a"], root)
	f := &usedFile{t: t, path: filepath.Join(root, vramUsed), own: map[string]uint64{}, base: cardTotal - plan.DefaultMargin - need*3/2}
	f.set("", 0)
	taken := need * 11 / 10 // more than expected
	for name, m := range models {
		models[name] = f.count(name, taken, m)
	}
	unloads := make(chan string, 10)
	p := openPool(t, rocm.PoolSettings{
		Models: models, SysRoot: root, MinResidency: -1, YieldMemory: 1,
		OnUnload: func(model string, cause scheduler.UnloadCause) { unloads <- model + ": " + string(cause) },
	})
	for range 2 {
		for _, name := range []string{"a", "b"} {
			l := lease(t, p, name)
			if s := state(t, p, name); s.Memory[cardPlace] != taken {
				t.Errorf("%s holds %v, want %d", name, s.Memory, taken)
			}
			l.Release()
		}
	}
	if f.peak != f.base+taken {
		t.Errorf("%d bytes were used at most, want one model's %d", f.peak-f.base, taken)
	}
	if a := state(t, p, "a"); a.State != rocm.ModelUnloaded {
		t.Errorf("a is %s", a.State)
	}
	for _, want := range []string{"a: room", "b: room", "a: room"} {
		if got := <-unloads; got != want {
			t.Errorf("unloaded %s, want %s", got, want)
		}
	}
	// Now other programs leave room for what the plan expects, and not for what the
	// models took.
	if err := p.Unload(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	f.base = cardTotal - plan.DefaultMargin - (need + need/20)
	f.set("", 0)
	_, err := p.Acquire(t.Context(), "a")
	var room *scheduler.NoRoomError
	if !errors.As(err, &room) || len(room.Reasons) != 1 || !strings.Contains(err.Error(), "other programs hold") {
		t.Errorf("%v", err)
	}
}

func TestPoolRefusesWhatCannotFit(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	fake.AddGPUModule(t)
	root := sysRoot(t, "rx7900xtx")
	models := poolModels(fake, "small", "large", "parts")
	large := models["large"]
	large.Context = 1 << 21
	models["large"] = large
	large.PartialOffload = true
	models["parts"] = large
	p := openPool(t, rocm.PoolSettings{Models: models, SysRoot: root})
	_, err := p.Acquire(t.Context(), "large")
	if !errors.Is(err, rocm.ErrNoRoom) || !errors.Is(err, plan.ErrDoesNotFit) || !strings.Contains(err.Error(), "partial-offload") {
		t.Errorf("large: %v", err)
	}
	l := lease(t, p, "parts")
	if pl := l.Model().Server().Plan; pl.WholeLayers == pl.TotalLayers || state(t, p, "large").Fits {
		t.Errorf("parts: %d of %d layers on the card", pl.WholeLayers, pl.TotalLayers)
	}
	l.Release()
	lease(t, p, "small").Release()
}

func TestPoolUsesEveryCard(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	fake.AddGPUModule(t)
	root := sysRoot(t, "two-equal")
	models := poolModels(fake, "a", "b")
	need := needOf(t, models["b"], root)
	second := strings.Replace(vramUsed, "renderD128", "renderD129", 1)
	for path, base := range map[string]uint64{vramUsed: need * 5 / 4, second: need * 3 / 2} {
		f := &usedFile{t: t, path: filepath.Join(root, path), own: map[string]uint64{}, base: cardTotal - plan.DefaultMargin - base}
		f.set("", 0)
		if path == vramUsed { // the fuller card is the better fit for the first model
			models["a"] = f.count("a", need, models["a"])
		} else {
			models["b"] = f.count("b", need, models["b"])
		}
	}
	p := openPool(t, rocm.PoolSettings{Models: models, SysRoot: root, YieldMemory: 1})
	a, b := lease(t, p, "a"), lease(t, p, "b")
	cards := [2]string{a.Model().Server().Plan.Chosen[0].PCI, b.Model().Server().Plan.Chosen[0].PCI}
	if cards[0] == cards[1] {
		t.Errorf("both on %s", cards[0])
	}
	a.Release()
	b.Release()
}

// Models are placed on cards whose memory the kernel does not report, on integrated GPUs with
// the main memory that they may map, and on devices that only Vulkan lists.
func TestPoolOnDevicesOfVulkan(t *testing.T) {
	for name, c := range map[string]struct {
		machine string
		device  fakellama.VulkanDevice
		place   string
	}{
		"NVIDIA":     {"nvidia", fakellama.VulkanDevice{Description: "NVIDIA GeForce RTX 4090", MiB: 24564}, "0000:01:00.0"},
		"integrated": {"raphael", fakellama.VulkanDevice{Description: "AMD Radeon Graphics (RADV RAPHAEL_MENDOCINO)", MiB: 32503}, "0000:18:00.0"},
		"virtual":    {"none", fakellama.VulkanDevice{Description: "Virtio-GPU Venus (AMD Radeon RX 7900 XTX (RADV NAVI31))", MiB: 24560}, "vulkan0"},
	} {
		t.Run(name, func(t *testing.T) {
			ownCache(t)
			fake := fakebundle.New(t, fakellama.Script{Vulkan: []fakellama.VulkanDevice{c.device}})
			if err := os.WriteFile(filepath.Join(fake.Dir, "libggml-vulkan.so"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			root := sysroot.Write(t, c.machine, map[string]string{
				"proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 67108864 kB\n",
				"usr/share/vulkan/icd.d/radeon_icd.x86_64.json": `{"ICD": {"api_version": "1.4.305", "library_path": "libvulkan_radeon.so"}}`,
			})
			p := openPool(t, rocm.PoolSettings{Models: poolModels(fake, "a", "b"), SysRoot: root})
			for _, name := range []string{"a", "b"} {
				l := lease(t, p, name)
				if got := l.Model().Server().Plan; got.Backend != plan.BackendVulkan || !got.Fits {
					t.Errorf("%s runs with %s: %q", name, got.Backend, got.Reasons)
				}
				if s := state(t, p, name); s.Memory[c.place] == 0 {
					t.Errorf("%s holds %v, want memory on %s", name, s.Memory, c.place)
				}
				l.Release()
			}
			for _, name := range []string{"a", "b"} { // neither made room for the other
				if s := state(t, p, name); s.State != rocm.ModelLoaded {
					t.Errorf("%s is %s", name, s.State)
				}
			}
		})
	}
}
