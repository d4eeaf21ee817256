package llvm

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
)

var (
	// comgrName matches the library whose results are compared.
	comgrName = regexp.MustCompile(`^libamd_comgr\.so\.[0-9]+$`)
	// hipName matches the library with the sources that comgr compiles on every
	// machine with a GPU.
	hipName = regexp.MustCompile(`^libamdhip64\.so\.[0-9]+$`)
)

// builtinKernel is in each source of the HIP runtime's built-in kernels.
const builtinKernel = "__kernel void __amd_rocclr_"

// Subject is the bundle directory whose libLLVM is proven.
type Subject struct {
	Dir       string
	SONAME    string              // of libLLVM
	Loader    string              // the program that starts everything in the bundle
	Module    string              // the HIP module
	Libraries []string            // the SONAMEs of the closure
	Needed    map[string][]string // DT_NEEDED of each file
	Targets   []gfx.Target
	Log       io.Writer
}

// find returns the library that matches form.
func (s *Subject) find(form *regexp.Regexp, what string) (string, error) {
	if i := slices.IndexFunc(s.Libraries, form.MatchString); i >= 0 {
		return s.Libraries[i], nil
	}
	return "", fmt.Errorf("the bundle has no %s", what)
}

// Prove compares the bundle's libLLVM with the whole one of the image before the
// bundle is finished. comgr does everything that the HIP runtime asks of it, once
// with the whole libLLVM and once, through the bundle's own loader, with the
// bundle's. The results must be the same bytes.
func (b *Builder) Prove(ctx context.Context, s *Subject) error {
	src, err := os.MkdirTemp(filepath.Dir(s.Dir), "prove-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(src) // a killed build leaves it in the unfinished stage, which is removed
	for _, d := range []string{"bundle", "code", "kernels"} {
		if err := os.Mkdir(filepath.Join(src, d), 0o750); err != nil {
			return err
		}
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(src, "probe.c"), []byte(probeSource), 0o600),
		s.copyLibraries(filepath.Join(src, "bundle")),
		s.copyCode(filepath.Join(src, "code")),
		s.writeKernels(filepath.Join(src, "kernels")),
	)
	if err != nil {
		return fmt.Errorf("prepare the proof of %s: %w", s.SONAME, err)
	}
	err = b.Engine.Run(ctx, engine.Job{
		Name: "prove " + s.SONAME, Image: b.Toolchain.ID,
		Cmd: []string{"/bin/sh", "-eu", "-c", probeScript},
		Env: environment(),
		Dir: "/build", UID: toolchain.User, GID: toolchain.User, Volumes: []string{"/src", "/build"},
		In:  []engine.Input{{Dir: "/src", Write: engine.TarDirectory(src, toolchain.User, b.Time)}},
		Log: s.Log, Memory: b.Memory,
	})
	if err != nil {
		return fmt.Errorf("the linked %s does not work as the whole one does: %w", s.SONAME, err)
	}
	return nil
}

// copyLibraries copies the loader, comgr and the libraries that comgr needs.
func (s *Subject) copyLibraries(to string) error {
	comgr, err := s.find(comgrName, "comgr")
	if err != nil {
		return err
	}
	names := []string{s.Loader, comgr}
	for j := 0; j < len(names); j++ { // grows during the walk
		if err := sparse.CopyFile(filepath.Join(s.Dir, names[j]), filepath.Join(to, names[j]), 0o755); err != nil {
			return err
		}
		for _, n := range s.Needed[names[j]] {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return nil
}

// copyCode copies code objects of each target: those of the HIP module, and one
// of Tensile's.
func (s *Subject) copyCode(to string) error {
	f, err := os.Open(filepath.Join(s.Dir, s.Module))
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
			if err := sparse.WriteFile(name, io.NewSectionReader(content, e.Offset, e.Size), 0o644); err != nil {
				return err
			}
			count[target]++
		}
	}
	for _, t := range s.Targets {
		tensile, err := filepath.Glob(filepath.Join(s.Dir, "rocblas", "*", "library", "*"+t.String()+".co"))
		if err != nil {
			return err
		}
		if count[t] == 0 || len(tensile) == 0 {
			return fmt.Errorf("%s has %d code objects and Tensile %d for %s; the proof needs one of each", s.Module, count[t], len(tensile), t)
		}
		if err := sparse.CopyFile(tensile[0], filepath.Join(to, t.String()+"-tensile.co"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// writeKernels writes the sources to compile for each target: ours, and those
// that the HIP runtime compiles on a machine with a GPU, as its library has them.
func (s *Subject) writeKernels(to string) error {
	hip, err := s.find(hipName, "HIP runtime")
	if err != nil {
		return err
	}
	builtin, err := builtinSource(filepath.Join(s.Dir, hip))
	if err != nil {
		return err
	}
	for _, t := range s.Targets {
		for n, text := range []string{probeKernels, builtin} {
			if err := os.WriteFile(filepath.Join(to, fmt.Sprintf("%s-%d.cl", t, n)), []byte(text), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// builtinSource finds the source of the HIP runtime's built-in kernels for
// copying and filling memory: the longest of the strings that define such
// kernels. The others are parts that are added to it on some devices.
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
		return "", fmt.Errorf("%s does not contain the source of its built-in kernels (%q): find out how this release builds them", filepath.Base(hip), builtinKernel)
	}
	return strings.TrimSpace(string(longest)), nil
}
