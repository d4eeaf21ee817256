package recipe

import (
	"bytes"
	"context"
	"debug/elf"
	_ "embed" // the probe is part of the program
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
)

// A bundle whose libLLVM was linked here is tried out before it is sealed: in
// the toolchain's image comgr does everything that the HIP runtime asks of it,
// once with the whole libLLVM of the image and once, through the bundle's own
// loader, with the bundle's; the results must be the same bytes.

var (
	//go:embed llvm/probe.c
	probeSource string
	//go:embed llvm/prove.sh
	probeScript string
	//go:embed llvm/kernels.cl
	probeKernels string
)

// comgrName matches the library whose work is compared.
var comgrName = regexp.MustCompile(`^libamd_comgr\.so\.[0-9]+$`)

// hipName matches the library that holds sources which comgr compiles on every
// machine with a GPU.
var hipName = regexp.MustCompile(`^libamdhip64\.so\.[0-9]+$`)

// builtinKernel is in each source of the HIP runtime's built-in kernels.
const builtinKernel = "__kernel void __amd_rocclr_"

// proveLLVM compares the work of the bundle's libLLVM with the whole one's.
func (c *collector) proveLLVM(ctx context.Context) error {
	if c.linked == nil {
		return nil
	}
	src, err := os.MkdirTemp(filepath.Dir(c.dir), "prove-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src) // also goes with the stage's unfinished folder
	for _, d := range []string{"bundle", "code", "kernels"} {
		if err := os.Mkdir(filepath.Join(src, d), 0o750); err != nil {
			return err
		}
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(src, "probe.c"), []byte(probeSource), 0o600),
		c.probeBundle(filepath.Join(src, "bundle")),
		c.probeCode(filepath.Join(src, "code")),
		c.probeSources(filepath.Join(src, "kernels")),
	)
	if err != nil {
		return fmt.Errorf("prepare the trial of %s: %w", c.linked.soname, err)
	}
	r := c.recipe
	err = r.Engine.Run(ctx, engine.Job{
		Name: "try " + c.linked.soname, Image: c.toolchain.ID,
		Cmd: []string{"/bin/sh", "-eu", "-c", probeScript},
		Env: []string{"PATH=/usr/bin:/bin", "HOME=/build", "LC_ALL=C.UTF-8", "TZ=UTC"},
		Dir: "/build", UID: buildUser, GID: buildUser, Volumes: []string{"/src", "/build"},
		In:  []engine.Input{{Dir: "/src", Write: tarFolder(src, r.Lock.Time())}},
		Log: &prefixed{w: r.Log, prefix: "bundle-" + c.variant.Name + ": "}, Memory: r.Memory,
	})
	if err != nil {
		return fmt.Errorf("%s, linked anew, does not do what the whole one does: %w", c.linked.soname, err)
	}
	return nil
}

// probeBundle takes comgr and what it needs out of the bundle.
func (c *collector) probeBundle(to string) error {
	i := slices.IndexFunc(c.libs.all, func(l elfdep.Lib) bool { return comgrName.MatchString(l.SONAME) })
	if i < 0 {
		return errors.New("the bundle holds no comgr")
	}
	names := []string{loaderName, c.libs.all[i].SONAME}
	for j := 0; j < len(names); j++ { // grows while we walk
		if err := sparse.CopyFile(filepath.Join(c.dir, names[j]), filepath.Join(to, names[j]), 0o755); err != nil {
			return err
		}
		for _, n := range c.libs.needed[names[j]] {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return nil
}

// probeCode takes code objects of each target: those of the HIP module, and
// one of Tensile's.
func (c *collector) probeCode(to string) error {
	f, err := os.Open(filepath.Join(c.dir, "libggml-hip.so"))
	if err != nil {
		return err
	}
	defer f.Close()
	fb, err := offload.ReadFatBinary(f)
	if err != nil {
		return err
	}
	count := map[gfx.Target]int{}
	for i := range fb.Bundles {
		content, err := fb.Content(&fb.Bundles[i])
		if err != nil {
			return err
		}
		for _, e := range fb.Bundles[i].Entries {
			if e.ID.Host() || e.Size == 0 {
				continue
			}
			target := e.ID.ID.Target
			name := filepath.Join(to, fmt.Sprintf("%s-ggml%03d.co", target, count[target]))
			if err := writeFile(name, io.NewSectionReader(content, e.Offset, e.Size), 0o644); err != nil {
				return err
			}
			count[target]++
		}
	}
	for _, t := range c.targets {
		tensile, err := filepath.Glob(filepath.Join(c.dir, "rocblas", "*", "library", "*"+t.String()+".co"))
		if err != nil {
			return err
		}
		if count[t] == 0 || len(tensile) == 0 {
			return fmt.Errorf("there are %d code objects of libggml-hip.so and %d of Tensile to try for %s", count[t], len(tensile), t)
		}
		if err := sparse.CopyFile(tensile[0], filepath.Join(to, t.String()+"-tensile.co"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// probeSources gives each target the sources to compile: ours, and those that
// the HIP runtime compiles on a machine with a GPU, as they lie in it.
func (c *collector) probeSources(to string) error {
	i := slices.IndexFunc(c.libs.all, func(l elfdep.Lib) bool { return hipName.MatchString(l.SONAME) })
	if i < 0 {
		return errors.New("the bundle holds no HIP runtime")
	}
	builtin, err := builtinSource(filepath.Join(c.dir, c.libs.all[i].SONAME))
	if err != nil {
		return err
	}
	for _, t := range c.targets {
		for n, s := range []string{probeKernels, builtin} {
			if err := os.WriteFile(filepath.Join(to, fmt.Sprintf("%s-%d.cl", t, n)), []byte(s), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// builtinSource finds the source of the HIP runtime's built-in kernels for
// copying and filling memory: the longest of the strings that define such
// kernels. The others are parts that go with it on some devices.
func builtinSource(hip string) (string, error) {
	f, err := elf.Open(hip)
	if err != nil {
		return "", fmt.Errorf("%s: %w", filepath.Base(hip), err)
	}
	defer f.Close()
	s := f.Section(".rodata")
	if s == nil {
		return "", fmt.Errorf("%s has no read-only data", filepath.Base(hip))
	}
	data, err := s.Data()
	if err != nil {
		return "", err
	}
	var longest []byte
	for part := range bytes.SplitSeq(data, []byte{0}) {
		if len(part) > len(longest) && bytes.Contains(part, []byte(builtinKernel)) {
			longest = part
		}
	}
	if longest == nil {
		return "", fmt.Errorf("%s holds no source of its built-in kernels (%q): find out how it makes them now", filepath.Base(hip), builtinKernel)
	}
	return strings.TrimSpace(string(longest)), nil
}

// prefixed puts a prefix before each line.
type prefixed struct {
	w      io.Writer
	prefix string
	middle bool
}

func (p *prefixed) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if !p.middle {
			line = append([]byte(p.prefix), line...)
		}
		p.middle = !bytes.HasSuffix(line, []byte("\n"))
		if _, err := p.w.Write(line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}
