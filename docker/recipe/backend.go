package recipe

import (
	"fmt"
	"slices"

	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Backend describes one compute backend of llama.cpp as data: a loadable module, how it is compiled,
// and what a bundle with it needs at run time. Each backend is in a file of its own, backend_NAME.go,
// and is one entry of backends. No other code of the build names it.
type Backend struct {
	// Name is the name of the component, of the bundle's variant and of the module, which is
	// libggml-NAME.so.
	Name string
	// Set has the tools that compile the module, and the libraries that it needs.
	Set toolchain.Set
	// Options returns the CMake options of the module, in addition to the shared ones.
	Options func(targets []gfx.Target) []Option
	// HasTargets reports whether the module contains code for the GPU targets of the settings.
	HasTargets bool
	// With names the backends whose modules the bundle contains in addition.
	With []string
	// Opened are the decisions about libraries that the module or its libraries open by name, in
	// addition to those of package elfdep: which of them the bundle contains, and which belong to
	// the driver of the host.
	Opened []elfdep.Decision
	// Devices says how a device and its driver are found at run time.
	Devices string
	// Untested says what of the backend was never compiled or run; empty if all of it was.
	Untested string
	// Limits are the fixed limits of the bundle's size.
	Limits Limits
}

// backends lists the backends. The order is that of the documentation.
var backends = []Backend{hip, vulkan, cuda, sycl}

// Backends returns the backends that can be built.
func Backends() []Backend { return slices.Clone(backends) }

// Module returns the file name of the backend's module.
func (b Backend) Module() string { return "libggml-" + b.Name + ".so" }

// component returns the compile of the module. It contains neither the CPU modules nor the server:
// the component core has those.
func (b Backend) component(lock Lock, targets []gfx.Target) Component {
	options := append(shared(lock), Option{Name: "GGML_CPU", Value: "OFF"})
	options = append(options, b.Options(targets)...)
	return Component{
		Name: b.Name, Set: b.Set,
		Options: append(options,
			Option{Name: "LLAMA_BUILD_COMMON", Value: "OFF"},
			Option{Name: "LLAMA_BUILD_TOOLS", Value: "OFF"},
			Option{Name: "LLAMA_BUILD_SERVER", Value: "OFF"},
		),
		Build:     []string{"ggml-" + b.Name},
		Libraries: []string{"libggml-base.so"},
		Modules:   []string{b.Module()},
	}
}

// variant returns the bundle of the backend.
func (b Backend) variant() Variant {
	return Variant{Name: b.Name, Components: append([]string{"core", b.Name}, b.With...), Set: b.Set}
}

// backendByName finds the backend of a component.
func backendByName(name string) (Backend, bool) {
	i := slices.IndexFunc(backends, func(b Backend) bool { return b.Name == name })
	if i < 0 {
		return Backend{}, false
	}
	return backends[i], true
}

// backendsOf returns the backends of a variant, in the order of its components.
func backendsOf(v Variant) []Backend {
	var out []Backend
	for _, name := range v.Components {
		if b, ok := backendByName(name); ok {
			out = append(out, b)
		}
	}
	return out
}

// Variants returns the bundles that can be built: that of the core alone, and one for each backend.
func Variants() []Variant {
	all := []Variant{{Name: "cpu", Components: []string{"core"}, Set: toolchain.CPU}}
	for _, b := range backends {
		all = append(all, b.variant())
	}
	return all
}

// VariantByName finds a variant.
func VariantByName(name string) (Variant, error) {
	for _, v := range Variants() {
		if v.Name == name {
			return v, nil
		}
	}
	return Variant{}, fmt.Errorf("there is no variant %q", name)
}

// ComponentNames returns the names of all components.
func ComponentNames() []string {
	names := []string{"core"}
	for _, b := range backends {
		names = append(names, b.Name)
	}
	return names
}

// Sets returns the sets of tools of the components of variants, each once.
func Sets(variants []Variant) []toolchain.Set {
	sets := []toolchain.Set{toolchain.CPU}
	for _, v := range variants {
		for _, b := range backendsOf(v) {
			if !slices.Contains(sets, b.Set) {
				sets = append(sets, b.Set)
			}
		}
	}
	return sets
}
