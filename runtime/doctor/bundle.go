package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// Cache checks the folders that a packed bundle may be unpacked to, best first:
// room for need bytes, and that programs may be run there.
func (m Machine) Cache(folders []string, need uint64) Finding {
	var bad []string
	for _, dir := range folders {
		there := dir
		for {
			if _, err := os.Stat(there); err == nil || there == filepath.Dir(there) {
				break
			}
			there = filepath.Dir(there)
		}
		disk, err := m.Disk(there)
		switch {
		case err != nil:
			bad = append(bad, fmt.Sprintf("%s: %v", dir, err))
		case disk.ReadOnly:
			bad = append(bad, dir+" cannot be written to")
		case disk.NoExec:
			bad = append(bad, dir+" is mounted noexec")
		case disk.Free < need:
			bad = append(bad, fmt.Sprintf("%s has %s free and the bundle needs %s", dir, size(disk.Free), size(need)))
		default:
			f := Finding{Check: "cache", State: OK, Detail: fmt.Sprintf("%s, %s free", dir, size(disk.Free))}
			if len(bad) > 0 {
				f.State = Warning
				f.Detail = strings.Join(bad, "; ") + "; used instead: " + f.Detail
				f.Remedy = cacheRemedy
			}
			return f
		}
	}
	return Finding{"cache", Failure, "no cache folder can be used: " + strings.Join(bad, "; "), cacheRemedy}
}

const cacheRemedy = "make room, or set GOROCM_CACHE to a folder on a disk with room that may run programs"

// Code checks that the bundle has code for a GPU of this machine. ok is false
// where there is no GPU to check it for.
func (m Machine) Code(targets []gfx.Target) (f Finding, ok bool) {
	all, err := gpu.NewFS(m.Root).Devices()
	if err != nil && len(all) == 0 {
		return f, false // the driver's finding says it
	}
	var others []string
	related := false
	for _, d := range gpu.NewMask(m.Environ).Apply(all) {
		if !d.Visible {
			continue
		}
		if slices.Contains(targets, d.Target) {
			return Finding{Check: "code", State: OK, Detail: "the bundle has code for " + d.Target.String()}, true
		}
		others = append(others, d.Target.String())
		relatives := d.Target.RelativesIn(targets)
		related = related || (len(relatives) > 0 && relatives[0].SameISA)
	}
	if len(others) == 0 {
		return f, false
	}
	have := gfx.Join(targets, ", ")
	if have == "" {
		have = "none for GPUs"
	}
	f = Finding{"code", Warning, fmt.Sprintf("the bundle has no code for %s (it has %s); %s", strings.Join(others, ", "), have, onCPU), "use a bundle that is built for the GPU"}
	if related {
		f.Remedy = "try --override auto, which runs code for a related target, or " + f.Remedy
	}
	return f, true
}

// HostROCm checks that what a bundle of the system flavour takes from the host
// is there. Other bundles need nothing.
func (m Machine) HostROCm(b *bundle.Manifest) Finding {
	if b == nil || b.Flavour != bundle.FlavourSystem {
		return Finding{Check: "rocm", State: OK, Detail: "not needed on the host: the bundle brings its own"}
	}
	dirs := m.libraryFolders()
	var missing []string
	for _, name := range fromHost(b) {
		found := slices.ContainsFunc(dirs, func(dir string) bool { return m.exists(dir, name) })
		if !found {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return Finding{
			"rocm", Failure, "the bundle takes libraries from the host that are not there: " + strings.Join(missing, ", "),
			"install ROCm with hipBLAS and rocBLAS (from AMD, or the distribution's libhipblas and librocblas packages), or use a hermetic bundle",
		}
	}
	detail := "all libraries that the bundle takes from the host are there"
	if version := m.text("opt/rocm/.info/version"); version != "" {
		detail += "; ROCm " + version
	}
	return Finding{Check: "rocm", State: OK, Detail: detail}
}

// fromHost lists the libraries that files of the bundle ask for and that it
// does not hold.
func fromHost(b *bundle.Manifest) []string {
	have := map[string]bool{}
	for _, f := range b.Files {
		have[filepath.Base(f.Path)] = true
	}
	var out []string
	for _, f := range b.Files {
		for _, name := range f.Needed {
			if !have[name] && !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// libraryFolders are where Debian, Ubuntu and AMD's packages put libraries, and
// what LD_LIBRARY_PATH adds.
func (m Machine) libraryFolders() []string {
	out := []string{
		"opt/rocm/lib", "opt/rocm/lib64", "usr/local/lib", "lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu",
		"lib64", "usr/lib64", "lib", "usr/lib",
	}
	if versions, err := filepath.Glob(m.path("opt/rocm-*/lib")); err == nil {
		for _, v := range versions {
			if rel, err := filepath.Rel(m.Root, v); err == nil {
				out = append(out, rel)
			}
		}
	}
	for _, dir := range filepath.SplitList(m.getenv("LD_LIBRARY_PATH")) {
		if dir != "" {
			out = append(out, dir)
		}
	}
	return out
}
