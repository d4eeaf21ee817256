package hostrocm_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/hostrocm"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// wants returns the manifest of a bundle built with ROCm 6.4.
func wants() *bundle.Manifest {
	by := []string{"libggml-hip.so"}
	return &bundle.Manifest{
		Flavour: bundle.FlavourSystem,
		Files: []bundle.File{
			{Path: "libc.so.6"},
			{Path: "libggml-hip.so", Needed: []string{"libhipblas.so.2", "librocblas.so.4", "libamdhip64.so.6", "libc.so.6"}},
			{Path: "libpthread.so.0"},
			{Path: "libstdc++.so.6"},
		},
		Host: &bundle.Host{
			ROCm: "6.4.3",
			Libraries: []bundle.HostLibrary{
				{SONAME: "libamdhip64.so.6", NeededBy: by, Versions: []string{"hip_4.2", "hip_6.0"}, Debian: "libamdhip64-6", AMD: "hip-runtime-amd"},
				{SONAME: "libhipblas.so.2", NeededBy: by, Debian: "libhipblas2", AMD: "hipblas"},
				{SONAME: "librocblas.so.4", NeededBy: by, Debian: "librocblas4", AMD: "rocblas"},
			},
			Provides: []string{"GLIBCXX_3.4.34", "GLIBC_2.43"},
		},
	}
}

// machine describes a tree of files and links by their paths.
type machine struct {
	files map[string][]byte
	links map[string]string
}

func (m machine) root(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, data := range m.files {
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range m.links {
		link := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(link), 0o700), os.Symlink(to, link)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func lib(soname string, needed ...string) []byte {
	return elfgen.Spec{SONAME: soname, Needed: append(needed, "libstdc++.so.6", "libc.so.6")}.Bytes()
}

// rocm adds an installation of ROCm 6 to dir, with the libraries in dir/lib.
func (m machine) rocm(dir, lib64 string) machine {
	if m.files == nil {
		m.files = map[string][]byte{}
	}
	at := func(name string) string { return filepath.Join(dir, lib64, name) }
	m.files[at("libamdhip64.so.6")] = lib("libamdhip64.so.6", "libhsa-runtime64.so.1", "libamd_comgr.so.2", "libpthread.so.0")
	m.files[at("libhsa-runtime64.so.1")] = lib("libhsa-runtime64.so.1", "libelf.so.1")
	m.files[at("libamd_comgr.so.2")] = lib("libamd_comgr.so.2")
	m.files[at("libhipblas.so.2")] = lib("libhipblas.so.2", "librocblas.so.4")
	m.files[at("librocblas.so.4")] = lib("librocblas.so.4", "libamdhip64.so.6")
	m.files["usr/lib/x86_64-linux-gnu/libelf.so.1"] = lib("libelf.so.1")
	return m
}

func (m machine) with(name string, data []byte) machine {
	m.files[name] = data
	return m
}

func (m machine) without(name string) machine {
	delete(m.files, name)
	return m
}

func (m machine) linked(name, to string) machine {
	m.links = map[string]string{name: to}
	return m
}

const multiarch = "usr/lib/x86_64-linux-gnu"

// opens is HIP as in Debian: it opens the code object manager by name.
func opens(name string) []byte {
	return elfgen.Spec{
		SONAME: "libamdhip64.so.6", Needed: []string{"libhsa-runtime64.so.1", "libc.so.6"},
		Symbols:  []elfgen.Symbol{{Name: "dlopen", Undefined: true}},
		Sections: []elfgen.Section{{Name: ".rodata", Flags: 2, Data: append([]byte("\x00"+name+"\x00libunheard.so.3"), 0)}},
	}.Bytes()
}

func TestFind(t *testing.T) {
	for name, c := range map[string]struct {
		machine  machine
		environ  []string
		location string
		dirs     []string
		version  string
		notes    string
	}{
		"opt rocm":     {machine{}.rocm("opt/rocm", "lib").with("opt/rocm/.info/version", []byte("6.4.1-83\n")), nil, "/opt/rocm", []string{"/opt/rocm/lib"}, "6.4.1", ""},
		"linked":       {machine{}.rocm("opt/rocm-6.4.1", "lib").linked("opt/rocm", "/etc/alternatives/rocm").alternative("opt/rocm-6.4.1"), nil, "/opt/rocm", []string{"/opt/rocm/lib"}, "", ""},
		"lib64":        {machine{}.rocm("opt/rocm-6.4.1", "lib64"), nil, "/opt/rocm-6.4.1", []string{"/opt/rocm-6.4.1/lib64"}, "", ""},
		"newest":       {machine{}.rocm("opt/rocm-6.4.1", "lib").rocm("opt/rocm-6.10.0", "lib").rocm("opt/rocm-6.9", "lib"), nil, "/opt/rocm-6.10.0", []string{"/opt/rocm-6.10.0/lib"}, "", ""},
		"core":         {machine{}.rocm("opt/rocm/core-6.4", "lib"), nil, "/opt/rocm/core-6.4", []string{"/opt/rocm/core-6.4/lib"}, "", ""},
		"core alone":   {machine{}.rocm("opt/rocm/core", "lib"), nil, "/opt/rocm/core", []string{"/opt/rocm/core/lib"}, "", ""},
		"by variable":  {machine{}.rocm("opt/rocm", "lib").rocm("srv/rocm", "lib"), []string{"ROCM_PATH=/x", "ROCM_PATH=/srv/rocm/"}, "/srv/rocm", []string{"/srv/rocm/lib"}, "", ""},
		"relative":     {machine{}.rocm("opt/rocm", "lib"), []string{"ROCM_PATH=srv/rocm"}, "/opt/rocm", []string{"/opt/rocm/lib"}, "", "ROCM_PATH=srv/rocm is ignored: it is not an absolute path"},
		"with a colon": {machine{}.rocm("opt/rocm", "lib").rocm("srv/a:b", "lib"), []string{"ROCM_PATH=/srv/a:b"}, "/opt/rocm", []string{"/opt/rocm/lib"}, "", "a colon"},
		"an origin":    {machine{}.rocm("opt/rocm", "lib"), []string{"ROCM_PATH=/$ORIGIN/x"}, "/opt/rocm", []string{"/opt/rocm/lib"}, "", "dollar"},
		"other release before": {
			machine{}.rocm("opt/rocm-6.4.1", "lib").with("opt/rocm/lib/libamdhip64.so.7", lib("libamdhip64.so.7")),
			nil, "/opt/rocm-6.4.1",
			[]string{"/opt/rocm-6.4.1/lib"},
			"", "",
		},
		"releases do not mix": {
			machine{}.rocm("opt/rocm-6.4.1", "lib").with("opt/rocm/lib/libamdhip64.so.6", lib("libamdhip64.so.6")),
			nil, "/opt/rocm-6.4.1",
			[]string{"/opt/rocm-6.4.1/lib"},
			"", "",
		},
		"a broken one before": {
			machine{}.rocm("opt/rocm-6.4.1", "lib").rocm("opt/rocm-6.4.2", "lib").with("opt/rocm-6.4.2/lib/librocblas.so.4", []byte("no library")),
			nil, "/opt/rocm-6.4.1",
			[]string{"/opt/rocm-6.4.1/lib"},
			"", "",
		},
		"system": {machine{}.rocm(multiarch, "."), nil, "the system's library directories", nil, "", ""},
		"by the cache": {
			machine{}.rocm("srv/hip", "lib").with("etc/ld.so.cache", writeCache(cacheLine{amd64, 0, "libamdhip64.so.6", "/srv/hip/lib/libamdhip64.so.6"})),
			nil, "the system's library directories",
			[]string{"/srv/hip/lib"},
			"", "",
		},
		"bad cache": {
			machine{}.rocm(multiarch, ".").with("etc/ld.so.cache", []byte("no cache")),
			nil, "the system's library directories", nil, "", "/etc/ld.so.cache is ignored",
		},
		"directories unknown to the loader": {machine{}.rocm("usr/lib64", "."), nil, "the system's library directories", []string{"/usr/lib64"}, "", ""},
		"opened by name": {
			machine{}.rocm(multiarch, ".").with(multiarch+"/libamdhip64.so.6", opens("libamd_comgr.so.3")).with(multiarch+"/libamd_comgr.so.3", lib("libamd_comgr.so.3")),
			nil, "the system's library directories", nil, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := hostrocm.NewFS(c.machine.root(t)).Find(wants(), c.environ)
			if err != nil {
				t.Fatal(err)
			}
			if h.Location != c.location || !slices.Equal(h.LibraryDirs, c.dirs) || h.Version != c.version {
				t.Errorf("%s %q %q; want %s %q %q", h.Location, h.LibraryDirs, h.Version, c.location, c.dirs, c.version)
			}
			if notes := strings.Join(h.Notes, "; "); !strings.Contains(notes, c.notes) || (c.notes == "") != (notes == "") {
				t.Errorf("notes %q, want %q", notes, c.notes)
			}
			if len(h.Libraries) != 6 && name != "releases do not mix" {
				t.Errorf("%d libraries, want 6: %+v", len(h.Libraries), h.Libraries)
			}
		})
	}
}

// alternative is the link of Debian's update-alternatives.
func (m machine) alternative(to string) machine {
	m.links["etc/alternatives/rocm"] = "/" + to
	return m
}

func TestFindReportsMissingLibraries(t *testing.T) {
	newer := elfgen.Spec{
		SONAME: "librocblas.so.4", Needed: []string{"libamdhip64.so.6", "libc.so.6"},
		Wants: []elfgen.Versions{{Library: "libc.so.6", Names: []string{"GLIBC_2.2.5", "GLIBC_2.44", "GLIBC_ABI_DT_RELR"}}},
	}.Bytes()
	older := elfgen.Spec{SONAME: "libamdhip64.so.6", Defines: []string{"libamdhip64.so.6", "hip_4.2"}}.Bytes()
	for name, c := range map[string]struct {
		machine machine
		environ []string
		says    []string
		not     string
	}{
		"older than the bundle": {
			machine{}.rocm("opt/rocm", "lib").with("opt/rocm/lib/libamdhip64.so.6", older),
			nil,
			[]string{"/opt/rocm/lib/libamdhip64.so.6 does not define hip_6.0, which libggml-hip.so needs: it is older than ROCm 6.4.3"},
			"is missing",
		},
		"nothing": {
			machine{}, nil, []string{
				"the host's ROCm cannot be used: ", "libamdhip64.so.6, needed by libggml-hip.so, is missing; libhipblas.so.2",
				"apt-get install libamdhip64-6 libhipblas2 librocblas4 (Debian, Ubuntu)",
				"apt-get install hip-runtime-amd hipblas rocblas of ROCm 6.x (AMD's repository)", "hermetic bundle",
			}, "was built for",
		},
		"another release": {
			machine{}.rocm("opt/rocm", "lib").without("opt/rocm/lib/libamdhip64.so.6").with("opt/rocm/lib/libamdhip64.so.7", lib("libamdhip64.so.7")).with("opt/rocm/lib/libamdhip64.so", nil),
			nil,
			[]string{"in /opt/rocm: libamdhip64.so.6, needed by libggml-hip.so, is missing (found /opt/rocm/lib/libamdhip64.so.7)", "was built for ROCm 6.x"},
			"libhipblas",
		},
		"what a library of the host needs": {
			machine{}.rocm("opt/rocm", "lib").without(multiarch + "/libelf.so.1"),
			nil,
			[]string{"libelf.so.1, needed by /opt/rocm/lib/libhsa-runtime64.so.1, is missing", "apt-get install libelf1 (Debian, Ubuntu)"},
			"libamdhip64.so.6",
		},
		"unknown library": {
			machine{}.rocm("opt/rocm", "lib").with("opt/rocm/lib/libhipblas.so.2", lib("libhipblas.so.2", "libnovel.so.1")),
			nil,
			[]string{"libnovel.so.1, needed by /opt/rocm/lib/libhipblas.so.2, is missing; install the packages that contain libnovel.so.1"},
			"apt-get install",
		},
		"what HIP opens by name": {
			machine{}.rocm(multiarch, ".").with(multiarch+"/libamdhip64.so.6", opens("libamd_comgr.so.3")),
			nil,
			[]string{"libamd_comgr.so.3, needed by /usr/lib/x86_64-linux-gnu/libamdhip64.so.6, is missing (found /usr/lib/x86_64-linux-gnu/libamd_comgr.so.2)", "libamd-comgr3", "comgr"},
			"",
		},
		"newer than the bundle": {
			machine{}.rocm("opt/rocm", "lib").with("opt/rocm/lib/librocblas.so.4", newer),
			nil,
			[]string{"/opt/rocm/lib/librocblas.so.4 needs GLIBC_2.44 of libc.so.6, and the bundle contains GLIBC_2.43"},
			"is missing",
		},
		"no library": {
			machine{}.rocm("opt/rocm", "lib").with("opt/rocm/lib/libhipblas.so.2", []byte("text")),
			nil,
			[]string{"bad ELF header"},
			"is missing",
		},
		"a variable that is passed over": {
			machine{}, []string{"ROCM_PATH=rocm"}, []string{"ROCM_PATH=rocm is ignored"}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := hostrocm.NewFS(c.machine.root(t)).Find(wants(), c.environ)
			var failed *hostrocm.Error
			if !errors.Is(err, hostrocm.ErrUnusable) || !errors.As(err, &failed) {
				t.Fatalf("got %v, want ErrUnusable", err)
			}
			for _, says := range c.says {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("%v\ndoes not say %q", err, says)
				}
			}
			if c.not != "" && strings.Contains(err.Error(), c.not) {
				t.Errorf("%v\nsays %q", err, c.not)
			}
		})
	}
	if _, err := hostrocm.NewFS("/").Find(&bundle.Manifest{}, nil); err == nil {
		t.Error("a hermetic bundle was looked for")
	}
}

func TestFindKernels(t *testing.T) {
	for name, c := range map[string]struct {
		files   []string
		dir     string
		kernels []gfx.Target
	}{
		"none": {nil, "", nil},
		"amd": {
			[]string{"opt/rocm/lib/rocblas/library/TensileLibrary_lazy_gfx1100.dat", "opt/rocm/lib/rocblas/library/Kernels.so-000-gfx90a-xnack+.hsaco", "opt/rocm/lib/rocblas/library/readme_gfx1101.txt"},
			"/opt/rocm/lib/rocblas/library",
			[]gfx.Target{"gfx90a", "gfx1100"},
		},
		"debian": {
			[]string{"opt/rocm/lib/rocblas/4.4.1/library/Kernels.so-000-gfx1101.hsaco", "opt/rocm/lib/rocblas/4.4.1/library/TensileLibrary_lazy_gfx1100.dat"},
			"/opt/rocm/lib/rocblas/4.4.1/library",
			[]gfx.Target{gfx.GFX1100, gfx.GFX1101},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := machine{}.rocm("opt/rocm", "lib")
			for _, f := range c.files {
				m.files[f] = []byte("x")
			}
			h, err := hostrocm.NewFS(m.root(t)).Find(wants(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if h.KernelDir != c.dir || !slices.Equal(h.KernelTargets, c.kernels) {
				t.Errorf("%q %q, want %q %q", h.KernelDir, h.KernelTargets, c.dir, c.kernels)
			}
		})
	}
}

// FuzzFind: whatever the files contain, Find returns an installation or a complete
// error.
func FuzzFind(f *testing.F) {
	f.Add(lib("libamdhip64.so.6"), []byte("6.4.1"), writeCache(), "/srv")
	f.Add([]byte("\x7fELF"), []byte{0}, []byte("x"), ":")
	f.Fuzz(func(t *testing.T, library, version, cache []byte, variable string) {
		m := machine{}.rocm("opt/rocm", "lib").with("opt/rocm/lib/libhipblas.so.2", library).
			with("opt/rocm/.info/version", version).with("etc/ld.so.cache", cache)
		h, err := hostrocm.NewFS(m.root(t)).Find(wants(), []string{"ROCM_PATH=" + variable})
		if err == nil && (h.Location == "" || len(h.Libraries) < 3) {
			t.Errorf("%+v", h)
		}
		var failed *hostrocm.Error
		if err != nil && (!errors.As(err, &failed) || failed.Remedy() == "" || len(failed.Missing)+len(failed.Broken) == 0) {
			t.Errorf("incomplete: %v", err)
		}
	})
}
