package recipe

import (
	"fmt"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Option is one CMake cache entry.
type Option struct {
	Name, Value string
	// IfKnown omits the option if the source does not declare it, for options that only some
	// releases have.
	IfKnown bool
}

// Component is one compile: a set of options and the build targets that use them. Bundles consist of
// components, so that what bundles share is compiled once.
type Component struct {
	Name    string
	Set     toolchain.Set
	Options []Option
	Build   []string // build targets
	// Files are the results, by their names in the build's bin directory.
	// Libraries are renamed to their SONAME.
	Programs, Libraries, Modules []string
}

// Variant is one kind of bundle.
type Variant struct {
	Name       string
	Components []string
	Set        toolchain.Set // the source of its run-time libraries
	// Flavour is empty for hermetic, or bundle.FlavourSystem. It determines the contents of the
	// bundle, never a compile.
	Flavour string
}

// Label returns the variant and its flavour: "hip", "hip-system".
func (v Variant) Label() string {
	if v.Flavour == "" {
		return v.Name
	}
	return v.Name + "-" + v.Flavour
}

// WithFlavour returns the variant in a flavour. A variant without ROCm has no system flavour, since
// the host could provide nothing.
func (v Variant) WithFlavour(flavour string) (Variant, error) {
	switch {
	case flavour == bundle.FlavourHermetic:
		v.Flavour = ""
	case flavour == bundle.FlavourSystem && v.hasROCm():
		v.Flavour = flavour
	case flavour == bundle.FlavourSystem:
		return v, fmt.Errorf("the %s variant contains nothing of ROCm, so it has no %s flavour", v.Name, flavour)
	default:
		return v, fmt.Errorf("there is no flavour %q", flavour)
	}
	return v, nil
}

// hasROCm reports whether ROCm is among the libraries of the variant.
func (v Variant) hasROCm() bool {
	return slices.ContainsFunc(backendsOf(v), func(b Backend) bool { return b.Set.ROCm })
}

// hasTargets reports whether the variant contains code for the GPU targets of the settings.
func (v Variant) hasTargets() bool {
	return slices.ContainsFunc(backendsOf(v), func(b Backend) bool { return b.HasTargets })
}

// Hardening and path hygiene. Assertions name source files relative to the
// tree, so that no build path is left in a file.
const (
	prefixMap      = "-ffile-prefix-map=/src=. -ffile-prefix-map=/build=."
	hostFlags      = "-fstack-protector-strong -fstack-clash-protection -fcf-protection -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 " + prefixMap
	hipFlags       = "-Xarch_host -fstack-protector-strong -Xarch_host -fstack-clash-protection -Xarch_host -fcf-protection -Xarch_host -U_FORTIFY_SOURCE -Xarch_host -D_FORTIFY_SOURCE=3 " + prefixMap
	linkFlags      = "-Wl,-z,relro,-z,now,-z,noexecstack"
	buildDirectory = "/build/tree"
)

// shared are the options of every component.
func shared(lock Lock) []Option {
	return []Option{
		{Name: "CMAKE_BUILD_TYPE", Value: "Release"},
		{Name: "CMAKE_C_FLAGS", Value: hostFlags},
		{Name: "CMAKE_CXX_FLAGS", Value: hostFlags},
		{Name: "CMAKE_POSITION_INDEPENDENT_CODE", Value: "ON"},
		{Name: "CMAKE_EXE_LINKER_FLAGS", Value: "-pie " + linkFlags},
		{Name: "CMAKE_SHARED_LINKER_FLAGS", Value: linkFlags},
		{Name: "CMAKE_MODULE_LINKER_FLAGS", Value: linkFlags},
		{Name: "CMAKE_BUILD_WITH_INSTALL_RPATH", Value: "ON"},
		{Name: "CMAKE_INSTALL_RPATH", Value: "$ORIGIN"},
		{Name: "BUILD_SHARED_LIBS", Value: "ON"},
		{Name: "GGML_BACKEND_DL", Value: "ON"},
		{Name: "GGML_NATIVE", Value: "OFF"},
		{Name: "GGML_CCACHE", Value: "OFF"},
		{Name: "GGML_RPC", Value: "OFF"},
		{Name: "LLAMA_OPENSSL", Value: "OFF"},
		{Name: "LLAMA_SUBPROCESS", Value: "OFF", IfKnown: true},
		{Name: "LLAMA_BUILD_UI", Value: "OFF", IfKnown: true},
		{Name: "LLAMA_USE_PREBUILT_UI", Value: "OFF", IfKnown: true},
		{Name: "LLAMA_BUILD_APP", Value: "OFF", IfKnown: true},
		{Name: "LLAMA_BUILD_IS_DEV", Value: "OFF", IfKnown: true},
		{Name: "LLAMA_BUILD_TESTS", Value: "OFF"},
		{Name: "LLAMA_BUILD_EXAMPLES", Value: "OFF"},
		{Name: "LLAMA_BUILD_NUMBER", Value: "0"},
		{Name: "LLAMA_BUILD_COMMIT", Value: lock.Tree[:12]},
	}
}

// components returns every component by name.
func components(lock Lock, targets []gfx.Target) map[string]Component {
	core := Component{
		Name: "core", Set: toolchain.CPU,
		Options:  append(shared(lock), Option{Name: "GGML_CPU_ALL_VARIANTS", Value: "ON"}),
		Build:    []string{"llama-server", "llama-fit-params"},
		Programs: []string{"llama-server", "llama-fit-params"},
		Libraries: []string{
			"libggml.so", "libggml-base.so", "libllama.so", "libllama-common.so", "libmtmd.so",
			"libllama-server-impl.so", "libllama-fit-params-impl.so",
		},
		Modules: []string{"libggml-cpu-*.so"},
	}
	all := map[string]Component{core.Name: core}
	for _, b := range backends {
		all[b.Name] = b.component(lock, targets)
	}
	return all
}

// arguments returns a component's options as CMake arguments, with the user's own at the end. Entries
// of extra are NAME=VALUE, or COMPONENT:NAME=VALUE for one component.
func (c Component) arguments(extra []string, known func(option string) bool) []string {
	var args []string
	for _, o := range c.Options {
		if o.IfKnown && !known(o.Name) {
			continue
		}
		args = append(args, "-D"+o.Name+"="+o.Value)
	}
	for _, e := range extra {
		name, _, _ := strings.Cut(e, "=")
		if only, _, ok := strings.Cut(name, ":"); ok {
			if only != c.Name {
				continue
			}
			e = strings.TrimPrefix(e, only+":")
		}
		args = append(args, "-D"+e)
	}
	return args
}
