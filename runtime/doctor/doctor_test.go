package doctor_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/doctor"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// ubuntu returns the files of a supported system with enough memory, and more.
func ubuntu(kernel string, more ...string) map[string]string {
	out := map[string]string{
		"proc/sys/kernel/osrelease": kernel + "\n",
		"etc/os-release":            "PRETTY_NAME=\"Ubuntu 24.04.2 LTS\"\nID=ubuntu\nVERSION_ID=\"24.04\"\n",
		"proc/meminfo":              "MemTotal: 65536000 kB\nMemAvailable: 60000000 kB\n",
	}
	for i := 0; i+1 < len(more); i += 2 {
		out[more[i]] = more[i+1]
	}
	return out
}

func log(text string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(text), nil }
}

const (
	fineLog = "<6>[    3.1] [drm] amdgpu kernel modesetting enabled.\n<6>[    3.2] amdgpu 0000:03:00.0: amdgpu: Fetched VBIOS from VFCT\n"
	slot    = "sys/bus/pci/devices/0000:03:00.0/"
	igpu    = "sys/bus/pci/devices/0000:18:00.0/"
)

// TestFindingsOfMachines compares every line about a machine with a golden file.
func TestFindingsOfMachines(t *testing.T) {
	for name, c := range map[string]struct {
		gpu     string
		files   map[string]string
		environ []string
		log     func() ([]byte, error)
		space   uint64
	}{
		"healthy":     {"rx7900xtx", ubuntu("6.11.0-21-generic", "sys/module/amdgpu/version", "6.8.5\n"), nil, log(fineLog), 0},
		"old-kernel":  {"rx7900xtx", ubuntu("6.8.0-45-generic"), nil, log(fineLog), 0},
		"override":    {"rx7800xt", ubuntu("6.11.0"), []string{"HSA_OVERRIDE_GFX_VERSION=11.0.0", "HSA_OVERRIDE_GFX_VERSION_1=10.3.0"}, log(fineLog), 0},
		"masked":      {"dgpu-raphael", ubuntu("6.10.0"), []string{"ROCR_VISIBLE_DEVICES="}, nil, 0},
		"no-firmware": {"", ubuntu("6.12.9", "sys/module/amdgpu/refcnt", "1", slot+"vendor", "0x1002\n", slot+"class", "0x030000\n", slot+"driver->", "../../../bus/pci/drivers/amdgpu"), nil, log(fineLog + "<4>[    3.3] amdgpu 0000:03:00.0: Direct firmware load for amdgpu/gc_11_0_0_pfp.bin failed with error -2\n<3>[    3.4] amdgpu 0000:03:00.0: amdgpu: Fatal error during GPU init\n"), 0},
		"no-driver":   {"", ubuntu("6.12.9", slot+"vendor", "0x1002\n", slot+"class", "0x030000\n"), nil, log(""), 0},
		"vfio":        {"", ubuntu("6.12.9", slot+"vendor", "0x1002\n", slot+"class", "0x038000\n", slot+"driver->", "/sys/bus/pci/drivers/vfio-pci"), nil, log(""), 0},
		"vfio-beside-igpu": {"raphael", ubuntu("6.12.9",
			"sys/module/amdgpu/refcnt", "1", slot+"vendor", "0x1002\n", slot+"class", "0x030000\n", slot+"driver->", "/sys/bus/pci/drivers/vfio-pci",
			igpu+"vendor", "0x1002\n", igpu+"class", "0x030000\n", igpu+"driver->", "/sys/bus/pci/drivers/amdgpu",
			"sys/bus/pci/devices/0000:04:00.0/vendor", "0x1002\n", "sys/bus/pci/devices/0000:04:00.0/class", "0x038000\n",
			"sys/bus/pci/devices/0000:05:00.1/vendor", "0x1002\n", "sys/bus/pci/devices/0000:05:00.1/class", "0x040300\n"), nil, log(fineLog), 0},
		"nvidia":              {"nvidia", ubuntu("6.12.9", slot+"vendor", "0x10de\n", slot+"class", "0x030000\n"), nil, log(""), 0},
		"hang":                {"rx7800xt", ubuntu("7.0.1"), nil, log("<3>[ 99.1] amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1\n<6>[ 99.2] amdgpu 0000:03:00.0: amdgpu: GPU reset begin!\n"), 0},
		"secret-log":          {"none", ubuntu("6.12.9"), nil, func() ([]byte, error) { return nil, errors.New("operation not permitted") }, 8 << 30},
		"docker-no-devices":   {"", ubuntu("6.12.9", ".dockerenv", "", "sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n", "sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 8\nsimd_count 0\n"), nil, nil, 0},
		"docker-no-render":    {"container-no-render", ubuntu("6.12.9", ".dockerenv", ""), nil, nil, 0},
		"podman":              {"rx7900xtx", ubuntu("6.12.9", "run/.containerenv", ""), nil, nil, 0},
		"pod-limited":         {"none", ubuntu("6.12.9", "proc/self/cgroup", "0::/kubepods/x\n", "sys/fs/cgroup/kubepods/x/memory.max", "2147483648\n"), nil, nil, 0},
		"fedora":              {"malformed", map[string]string{"proc/sys/kernel/osrelease": "6.15.3-200.fc42", "usr/lib/os-release": "ID=fedora\nVERSION_ID=42\n", "proc/meminfo": "MemTotal: 65536000 kB\n"}, []string{"container=lxc"}, nil, 0},
		"nothing-can-be-read": {"", nil, nil, nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := sysroot.Write(t, c.gpu, c.files)
			m := doctor.Machine{Root: root, Environ: c.environ, KernelLog: c.log, AddressSpaceLimit: c.space}
			list := append(m.CheckSystem(), m.CheckGPU()...)
			for _, f := range list {
				if (f.Status == doctor.OK) != (f.Remedy == "") || f.Check == "" || f.Detail == "" {
					t.Errorf("incomplete: %+v", f)
				}
			}
			raw, err := json.MarshalIndent(list, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got := strings.ReplaceAll(string(raw), root, "") + "\n"
			golden := filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("findings differ from %s (-want +got):\n%s", golden, d)
			}
		})
	}
}

func TestCheckCache(t *testing.T) {
	there := t.TempDir()
	bad := t.TempDir()
	for name, c := range map[string]struct {
		dirs  []string
		first doctor.Disk
		err   error
		need  uint64
		state doctor.Status
		says  string
	}{
		"room":          {[]string{there + "/not/yet"}, doctor.Disk{Free: 2 << 30}, nil, 1 << 30, doctor.OK, "2.0 GiB free"},
		"full":          {[]string{bad}, doctor.Disk{Free: 1 << 20}, nil, 1 << 30, doctor.Failure, "has 1 MiB free and the bundle needs 1.0 GiB"},
		"noexec":        {[]string{bad}, doctor.Disk{Free: 2 << 30, NoExec: true}, nil, 1, doctor.Failure, "mounted noexec"},
		"read-only":     {[]string{bad}, doctor.Disk{Free: 2 << 30, ReadOnly: true}, nil, 1, doctor.Failure, "is not writable"},
		"unknown":       {[]string{bad}, doctor.Disk{}, errors.New("no such device"), 1, doctor.Failure, "no such device"},
		"none":          {nil, doctor.Disk{}, nil, 1, doctor.Failure, "no cache directory"},
		"the next will": {[]string{bad, there}, doctor.Disk{NoExec: true}, nil, 1, doctor.Warning, "used instead: " + there},
	} {
		t.Run(name, func(t *testing.T) {
			m := doctor.Machine{Disk: func(dir string) (doctor.Disk, error) {
				if dir == bad || len(c.dirs) == 1 {
					return c.first, c.err
				}
				return doctor.Disk{Free: 9 << 30}, nil
			}}
			f := m.CheckCache(c.dirs, c.need)
			if f.Status != c.state || !strings.Contains(f.Detail, c.says) || (f.Status == doctor.OK) != (f.Remedy == "") {
				t.Errorf("%+v, want %s that says %q", f, c.state, c.says)
			}
		})
	}
}

func TestCheckROCm(t *testing.T) {
	by := []string{"libggml-hip.so"}
	system := &bundle.Manifest{
		Flavour: bundle.FlavourSystem, Targets: []gfx.Target{gfx.GFX1100},
		Files: []bundle.File{{Path: "libc.so.6"}, {Path: "libggml-hip.so", Needed: []string{"libhipblas.so.2", "libamdhip64.so.6", "libc.so.6"}}},
		Host: &bundle.Host{ROCm: "6.4.3", Libraries: []bundle.HostLibrary{
			{SONAME: "libamdhip64.so.6", NeededBy: by, Debian: "libamdhip64-6", AMD: "hip-runtime-amd"},
			{SONAME: "libhipblas.so.2", NeededBy: by, Debian: "libhipblas2", AMD: "hipblas"},
		}},
	}
	hip := string(elfgen.Spec{SONAME: "libamdhip64.so.6", Needed: []string{"libc.so.6"}}.Bytes())
	blas := string(elfgen.Spec{SONAME: "libhipblas.so.2", Needed: []string{"librocblas.so.4"}}.Bytes())
	rocblas := string(elfgen.Spec{SONAME: "librocblas.so.4", Needed: []string{"libc.so.6"}}.Bytes())
	whole := func(dir string, more ...string) map[string]string {
		files := map[string]string{
			dir + "/lib/libamdhip64.so.6": hip, dir + "/lib/libhipblas.so.2": blas, dir + "/lib/librocblas.so.4": rocblas,
			dir + "/lib/rocblas/library/TensileLibrary_lazy_gfx1100.dat": "",
		}
		for i := 0; i < len(more); i += 2 {
			files[more[i]] = more[i+1]
		}
		return files
	}
	for name, c := range map[string]struct {
		b       *bundle.Manifest
		files   map[string]string
		environ []string
		state   doctor.Status
		says    string
		remedy  string
	}{
		"hermetic":       {&bundle.Manifest{Flavour: bundle.FlavourHermetic}, nil, nil, doctor.OK, "contains its own", ""},
		"no manifest":    {nil, nil, nil, doctor.OK, "contains its own", ""},
		"missing":        {system, nil, nil, doctor.Warning, "libhipblas.so.2, needed by libggml-hip.so, is missing; models run on the CPU", "libamdhip64-6 libhipblas2 (Debian, Ubuntu)"},
		"amd's packages": {system, whole("opt/rocm", "opt/rocm/.info/version", "6.4.1-83\n"), nil, doctor.OK, "ROCm 6.4.1 in /opt/rocm", ""},
		"one version":    {system, whole("opt/rocm-6.4.1"), nil, doctor.OK, "are in /opt/rocm-6.4.1", ""},
		"by environment": {system, whole("srv/hip"), []string{"ROCM_PATH=/srv/hip"}, doctor.OK, "are in /srv/hip", ""},
		"passed over":    {system, whole("opt/rocm"), []string{"ROCM_PATH=srv"}, doctor.OK, "ROCM_PATH=srv is ignored", ""},
		"other kernels": {
			&bundle.Manifest{Flavour: system.Flavour, Targets: []gfx.Target{gfx.GFX1100, gfx.GFX1101}, Files: system.Files, Host: system.Host},
			whole("opt/rocm"), nil, doctor.Warning, "has no kernels for gfx1101 (/opt/rocm/lib/rocblas/library has those for gfx1100)", "hermetic",
		},
		"system without host": {&bundle.Manifest{Flavour: bundle.FlavourSystem}, nil, nil, doctor.Warning, "uses nothing", "hermetic"},
	} {
		t.Run(name, func(t *testing.T) {
			m := doctor.Machine{Root: sysroot.Write(t, "", c.files), Environ: c.environ}
			f := m.CheckROCm(c.b)
			if f.Status != c.state || !strings.Contains(f.Detail, c.says) || !strings.Contains(f.Remedy, c.remedy) || (f.Status == doctor.OK) != (f.Remedy == "") {
				t.Errorf("%+v, want %s that says %q, %q", f, c.state, c.says, c.remedy)
			}
		})
	}
}

func TestCheckTargets(t *testing.T) {
	both := []gfx.Target{gfx.GFX1100, gfx.GFX1101}
	for name, c := range map[string]struct {
		gpu     string
		targets []gfx.Target
		state   doctor.Status // empty: nothing to check
		says    string
		remedy  string
	}{
		"there":       {"rx7800xt", both, doctor.OK, "has code for gfx1101", ""},
		"one of them": {"dgpu-raphael", both, doctor.OK, "has code for gfx1100", ""},
		"relative":    {"rx7600", both, doctor.Warning, "no code for gfx1102 (it has gfx1100, gfx1101)", "--override auto"},
		"foreign":     {"raphael", both, doctor.Warning, "no code for gfx1036", "use a bundle"},
		"cpu bundle":  {"rx7900xtx", nil, doctor.Warning, "none for GPUs", "use a bundle"},
		"no gpu":      {"none", both, "", "", ""},
		"no render":   {"container-no-render", both, "", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, ok := doctor.Machine{Root: sysroot.Write(t, c.gpu, nil)}.CheckTargets(c.targets)
			if ok != (c.state != "") || f.Status != c.state || !strings.Contains(f.Detail, c.says) || !strings.Contains(f.Remedy, c.remedy) {
				t.Errorf("%+v, %v; want %q that says %q, %q", f, ok, c.state, c.says, c.remedy)
			}
		})
	}
}

// FuzzMachine: whatever the files contain, each finding is complete.
func FuzzMachine(f *testing.F) {
	f.Add("6.8.0", "ID=debian\nVERSION_ID=12\n", "MemTotal: 1 kB", "0::/docker/x", "amdgpu: GPU reset")
	f.Add("99999999999999999999.1", "=\n==", "", ":::", "\n\n")
	f.Fuzz(func(t *testing.T, release, osRelease, info, groups, messages string) {
		m := doctor.Machine{
			Root: sysroot.Write(t, "", map[string]string{
				"proc/sys/kernel/osrelease": release, "etc/os-release": osRelease, "proc/meminfo": info, "proc/self/cgroup": groups,
			}),
			KernelLog: log(messages),
		}
		for _, f := range append(m.CheckSystem(), m.CheckGPU()...) {
			if (f.Status == doctor.OK) != (f.Remedy == "") {
				t.Errorf("incomplete: %+v", f)
			}
		}
	})
}
