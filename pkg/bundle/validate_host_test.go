package bundle_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// system returns a manifest of the system flavour.
func system() *bundle.Manifest {
	m := full()
	m.Flavour = bundle.FlavourSystem
	m.Files[1].Needed = []string{"libc.so.6", "libamdhip64.so.6", "librocblas.so.4"}
	m.Host = &bundle.Host{
		ROCm: "6.4.3",
		Libraries: []bundle.HostLibrary{
			{SONAME: "libamdhip64.so.6", NeededBy: []string{"llama-server"}, Versions: []string{"hip_4.2", "hip_6.0"}, Debian: "libamdhip64-6", AMD: "hip-runtime-amd"},
			{SONAME: "librocblas.so.4", NeededBy: []string{"llama-server"}},
		},
		Provides: []string{"GLIBCXX_3.4.36", "GLIBC_2.43"},
	}
	return m
}

func TestHostRequirements(t *testing.T) {
	t.Parallel()
	b, err := system().MarshalCanonical()
	if err != nil {
		t.Fatal(err)
	}
	got, err := bundle.ParseManifest(b)
	if diff := cmp.Diff(system(), got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	hermetic, err := full().MarshalCanonical()
	if err != nil || bytes.Contains(hermetic, []byte(`"host"`)) {
		t.Errorf("a hermetic manifest has host requirements: %s, %v", hermetic, err)
	}
	for name, c := range map[string]struct {
		change func(*bundle.Manifest)
		says   string
	}{
		"hermetic":           {func(m *bundle.Manifest) { m.Flavour = bundle.FlavourHermetic }, "hermetic needs nothing"},
		"no release":         {func(m *bundle.Manifest) { m.Host.ROCm = "" }, "rocm"},
		"odd release":        {func(m *bundle.Manifest) { m.Host.ROCm = "6.4-1" }, "6.4-1"},
		"no libraries":       {func(m *bundle.Manifest) { m.Host.Libraries = nil }, "hermetic"},
		"no name":            {func(m *bundle.Manifest) { m.Host.Libraries[0].SONAME = "" }, "bad name"},
		"a path":             {func(m *bundle.Manifest) { m.Host.Libraries[0].SONAME = "/lib/x.so.1" }, "bad name"},
		"odd package":        {func(m *bundle.Manifest) { m.Host.Libraries[0].AMD = "a\nb" }, "bad name"},
		"in the bundle":      {func(m *bundle.Manifest) { m.Host.Libraries[0].SONAME = "ld-linux-x86-64.so.2" }, "the bundle contains it"},
		"odd version":        {func(m *bundle.Manifest) { m.Host.Libraries[0].Versions[0] = "" }, "symbol version"},
		"version twice":      {func(m *bundle.Manifest) { m.Host.Libraries[0].Versions[0] = "hip_6.0" }, "symbol version"},
		"for no file":        {func(m *bundle.Manifest) { m.Host.Libraries[0].NeededBy = nil }, "no file needs it"},
		"for another":        {func(m *bundle.Manifest) { m.Host.Libraries[0].NeededBy[0] = "ld-linux-x86-64.so.2" }, "is not a file that needs it"},
		"for a missing file": {func(m *bundle.Manifest) { m.Host.Libraries[0].NeededBy[0] = "x" }, "is not a file that needs it"},
		"unsorted":           {func(m *bundle.Manifest) { l := m.Host.Libraries; l[0], l[1] = l[1], l[0] }, "sorted"},
		"no version":         {func(m *bundle.Manifest) { m.Host.Provides[0] = "GLIBC" }, "symbol version"},
		"versions twice":     {func(m *bundle.Manifest) { m.Host.Provides[0] = "GLIBC_2.43" }, "sorted"},
	} {
		t.Run(name, func(t *testing.T) {
			m := system()
			c.change(m)
			if err := m.Validate(); !errors.Is(err, bundle.ErrManifest) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want ErrManifest with %q", err, c.says)
			}
		})
	}
}
