//go:build linux && amd64

package rocm_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

// xtx is the card of the machine rx7900xtx as RADV reports it, after a software driver.
func xtx() []fakellama.VulkanDevice {
	return []fakellama.VulkanDevice{
		{Description: "llvmpipe (LLVM 19.1.7, 256 bits)", MiB: 64000, Software: true},
		{Description: "AMD Radeon RX 7900 XTX (RADV NAVI31)", MiB: 24560},
	}
}

// vulkanBundle creates a bundle with a GPU module and a Vulkan module, and a machine with
// a driver, whose root it returns. The bundle's llama-server runs script first. The cache,
// which has what was measured and what failed, is the test's own.
func vulkanBundle(t *testing.T, script string) (fake *fakebundle.Bundle, root string) {
	t.Helper()
	ownCache(t)
	fake = fakebundle.New(t, fakellama.Script{Reply: "a", Vulkan: xtx()})
	fake.AddGPUModule(t)
	fake.Before(t, script)
	if err := os.WriteFile(filepath.Join(fake.Dir, "libggml-vulkan.so"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return fake, sysroot.Write(t, "rx7900xtx", map[string]string{
		"proc/meminfo": "MemTotal: 67108864 kB\n",
		"usr/share/vulkan/icd.d/radeon_icd.x86_64.json": `{"ICD": {"api_version": "1.4.305", "library_path": "libvulkan_radeon.so"}}`,
	})
}

// fails returns a script in which starts with the given devices fail as named in real
// logs.
func fails(devices ...string) string {
	const log = `Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x2. Reason: Page not present or supervisor privilege.`
	var b strings.Builder
	b.WriteString(`case "$*" in *--help*|*--list-devices*) ;; `)
	for _, d := range devices {
		b.WriteString("*" + d + "*) echo '" + log + "' >&2; kill -ABRT $$;; ")
	}
	b.WriteString("esac")
	return b.String()
}

// A backend that fails while it loads is replaced by the next one, at most twice, and
// only where the settings leave the backend open.
func TestBackendStepsDownWhileLoading(t *testing.T) {
	for name, c := range map[string]struct {
		failing []string
		options plan.Options
		want    plan.Backend
		err     error
	}{
		"nothing fails":                         {nil, plan.Options{}, plan.BackendHIP, nil},
		"HIP fails":                             {[]string{"ROCm0"}, plan.Options{}, plan.BackendVulkan, nil},
		"both fail":                             {[]string{"ROCm0", "Vulkan0"}, plan.Options{}, plan.BackendCPU, nil},
		"HIP fails, and a GPU is required":      {[]string{"ROCm0"}, plan.Options{Devices: plan.Devices{Required: true}}, plan.BackendVulkan, nil},
		"both fail, and a GPU is required":      {[]string{"ROCm0", "Vulkan0"}, plan.Options{Devices: plan.Devices{Required: true}}, "", supervise.ErrGPUFault},
		"a named backend fails":                 {[]string{"ROCm0"}, plan.Options{Backend: plan.BackendHIP}, "", supervise.ErrGPUFault},
		"the other one is named":                {[]string{"ROCm0"}, plan.Options{Backend: plan.BackendVulkan}, plan.BackendVulkan, nil},
		"HIP fails with a number of layers":     {[]string{"ROCm0"}, plan.Options{Layers: plan.AllLayers}, plan.BackendVulkan, nil},
		"both fail with a number of layers":     {[]string{"ROCm0", "Vulkan0"}, plan.Options{Layers: plan.AllLayers}, "", supervise.ErrGPUFault},
		"nothing fails with a number of layers": {nil, plan.Options{Layers: plan.AllLayers}, plan.BackendHIP, nil},
	} {
		t.Run(name, func(t *testing.T) {
			fake, root := vulkanBundle(t, fails(c.failing...))
			var logged bytes.Buffer
			s := rocm.Settings{Bundle: fake.Dir, Options: c.options, SysRoot: root, Restart: rocm.Restart{Disabled: true}, Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))}
			srv, err := rocm.Launch(t.Context(), fake.Model, s)
			if !errors.Is(err, c.err) || (c.err == nil && err != nil) {
				t.Fatalf("%v, want %v; logged %s", err, c.err, &logged)
			}
			if err != nil {
				return
			}
			if srv.Plan.Backend != c.want {
				t.Errorf("%s, want %s; %q", srv.Plan.Backend, c.want, srv.Plan.Reasons)
			}
			if env := strings.Join(srv.Child.Diagnose().Env, " "); c.want == plan.BackendVulkan && !strings.Contains(env, "GGML_VK_VISIBLE_DEVICES=1") {
				t.Errorf("environment %s", env)
			}
			if err := srv.Close(); err != nil {
				t.Error(err)
			}
			// The next load does not repeat the failure.
			before := logged.String()
			p, err := rocm.Plan(fake.Model, s)
			if err != nil || p.Backend != c.want {
				t.Errorf("planned again: %v, %v", p, err)
			}
			if steps := strings.Count(before, "running with") + strings.Count(before, "running on the CPU"); c.options.Backend == "" && steps != len(c.failing) {
				t.Errorf("%d steps were logged: %s", steps, before)
			}
		})
	}
}

// A driver that is not there is not remembered: the next load tries HIP again.
func TestMissingDeviceIsNotRemembered(t *testing.T) {
	fake, root := vulkanBundle(t, `case "$*" in *ROCm0*) echo 'error while handling argument "--device": invalid device: ROCm0' >&2; exit 1;; esac`)
	s := rocm.Settings{Bundle: fake.Dir, SysRoot: root, Restart: rocm.Restart{Disabled: true}}
	srv, err := rocm.Launch(t.Context(), fake.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = srv.Close() }()
	if srv.Plan.Backend != plan.BackendVulkan {
		t.Errorf("%s: %q", srv.Plan.Backend, srv.Plan.Reasons)
	}
	if p, err := rocm.Plan(fake.Model, s); err != nil || p.Backend != plan.BackendHIP {
		t.Errorf("planned again: %v, %v", p, err)
	}
}

// A backend that fails while it serves is replaced after three failures, in the same
// server.
func TestBackendStepsDownWhileServing(t *testing.T) {
	// The first three processes become ready and die of a GPU fault.
	dir := t.TempDir()
	fake, root := vulkanBundle(t, `case "$*" in *--help*|*--list-devices*) ;; *ROCm0*) echo x >>`+dir+`/starts
(while [ ! -e `+dir+`/ready-$(wc -l <`+dir+`/starts) ]; do sleep 0.02; done
echo 'Memory access fault by GPU node-1 (Agent handle: 0x1) on address 0x2. Reason: Page not present or supervisor privilege.' >&2; kill -ABRT $$) & ;; esac`)
	s := rocm.Settings{Bundle: fake.Dir, SysRoot: root, Restart: rocm.Restart{MinBackoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond}}
	readies := 0
	s.OnEvent = func(e supervise.Event) {
		if e.To == supervise.Ready && e.From != supervise.Ready {
			readies++
			_ = os.WriteFile(filepath.Join(dir, "ready-"+string(rune('0'+readies))), nil, 0o600)
		}
	}
	srv, err := rocm.Launch(t.Context(), fake.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	}()
	events, stop := srv.Child.Subscribe()
	defer stop()
	for srv.Child.State() != supervise.Ready || srv.CurrentPlan().Backend != plan.BackendVulkan {
		e, ok := <-events
		if !ok {
			t.Fatalf("the server ended: %v", srv.Child.Err())
		}
		if e.To == supervise.Failed {
			t.Fatal(e.Cause)
		}
	}
	argv := strings.Join(srv.Child.Diagnose().Argv, " ")
	if raw, err := os.ReadFile(filepath.Join(dir, "starts")); err != nil || strings.Count(string(raw), "x") != 3 || !strings.Contains(argv, "--device Vulkan0") {
		t.Errorf("%q starts with HIP, %v; now %s", raw, err, argv)
	}
	if srv.Plan.Backend != plan.BackendHIP {
		t.Errorf("the plan that loading ended with became %s", srv.Plan.Backend)
	}
}

// A stored measurement decides.
func TestMeasurementDecides(t *testing.T) {
	fake, root := vulkanBundle(t, "")
	s := rocm.Settings{Bundle: fake.Dir, SysRoot: root}
	m, err := rocm.DetectMachine(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	p, err := rocm.Plan(fake.Model, s)
	if err != nil || p.Backend != plan.BackendHIP {
		t.Fatalf("without a measurement: %v, %v", p, err)
	}
	at := speed.Sample{Mean: 100, Count: 3}
	fast := speed.Sample{Mean: 120, Count: 3}
	record := speed.Record{Key: m.SpeedKey(m.Devices[0], p.Request.Model), Time: time.Now()}
	for backend, v := range map[string]speed.Sample{"hip": at, "vulkan": fast} {
		record.Runs = append(record.Runs, speed.Run{
			Settings: speed.Settings{Backend: backend, FlashAttention: true, Batch: speed.DefaultBatch},
			Depths:   []speed.Depth{{Tokens: 0, Prompt: v, Generation: v}},
		})
	}
	if err := (speed.Store{}).Save(record); err != nil {
		t.Fatal(err)
	}
	p, err = rocm.Plan(fake.Model, s)
	if err != nil || p.Backend != plan.BackendVulkan || !strings.Contains(strings.Join(p.Reasons, "\n"), "vulkan generates 120.0") {
		t.Errorf("with a measurement: %v, %v", p, err)
	}
}

// Any llama-server is supervised without a bundle, and said to be unverified.
func TestServerThatIsNotFromABundle(t *testing.T) {
	fake := fakebundle.New(t, fakellama.Script{Reply: "a", ROCm: []string{"AMD Radeon RX 7900 XTX"}, Process: fakellama.Process{OldFlags: []string{"--kv-unified", "-kvu"}}})
	t.Setenv(locate.EnvBundle, "/no/such/bundle")
	var logged bytes.Buffer
	s := rocm.Settings{Server: fake.Server(), SysRoot: sysRoot(t, "rx7600"), Log: slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	s.Slots = 2
	srv, err := rocm.Launch(t.Context(), fake.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	if srv.Plan.Backend != plan.BackendHIP || srv.Origin != locate.OriginServer || strings.Contains(strings.Join(srv.Plan.Env, " "), "HSA_OVERRIDE") {
		t.Errorf("%s, %s, %q", srv.Plan.Backend, srv.Origin, srv.Plan.Env)
	}
	if said := logged.String(); !strings.Contains(said, "nothing of it is verified") || !strings.Contains(said, "does not accept --kv-unified") {
		t.Errorf("logged %s", said)
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for path, why := range map[string]string{
		"/no/such/server": "no such file", t.TempDir(): "is a directory", fake.Model: "not an executable file", script: "do not answer as llama-server's do", "/bin/false": "not a usable llama-server",
	} {
		s.Server = path
		if _, err := rocm.Launch(t.Context(), fake.Model, s); !errors.Is(err, locate.ErrNotServer) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", path, err)
		}
	}
	s.Bundle = "/x"
	if err := s.Validate(); !errors.Is(err, rocm.ErrInvalidOption) {
		t.Errorf("a bundle and a server: %v", err)
	}
}
