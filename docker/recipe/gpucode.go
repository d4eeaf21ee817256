package recipe

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
)

const (
	hipModule = "libggml-hip.so"
	rocBLAS   = "librocblas.so.*" // a pattern of path.Match
)

// gpuFilePatterns are patterns of the files that a bundle must have with GPU code. A
// bundle of the system flavour uses the host's rocBLAS.
func (c *collector) gpuFilePatterns() []string {
	if c.variant.Flavour == bundle.FlavourSystem {
		return []string{hipModule}
	}
	return []string{hipModule, rocBLAS}
}

// slim removes the code of other targets from every file, and records the rest. Every file with
// GPU code must then have it for exactly our targets.
func (c *collector) slim() error {
	names, err := elfFiles(c.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		_, err := offload.ReadCodeObjects(name)
		if errors.Is(err, offload.ErrNoFatBinary) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := offload.Slim(name, c.targets); err != nil {
			return err
		}
		objects, err := offload.CheckTargets(name, c.targets)
		if err != nil {
			return err
		}
		base := filepath.Base(name)
		if slices.ContainsFunc(c.gpuFilePatterns(), func(p string) bool { return matches(p, base) }) {
			if err := checkKernelCounts(base, objects); err != nil {
				return err
			}
		}
		c.addObjects(base, objects)
	}
	for _, must := range c.gpuFilePatterns() {
		if !slices.ContainsFunc(c.objects, func(o bundle.CodeObjects) bool { return matches(must, o.File) }) {
			return fmt.Errorf("%s has no GPU code", must)
		}
	}
	return nil
}

func matches(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// checkKernelCounts compares a file's numbers of kernels for gfx1100 and gfx1101.
// Both are compiled from the same source, which treats them alike.
func checkKernelCounts(file string, objects []offload.CodeObjects) error {
	count := map[gfx.Target]int{}
	for _, o := range objects {
		count[o.Target] = o.Kernels
	}
	a, hasA := count[gfx.GFX1100]
	b, hasB := count[gfx.GFX1101]
	if hasA && hasB && a != b {
		return fmt.Errorf("%s has %d kernels for %s and %d for %s, and must have the same ones for both: a part of it was not compiled for one of them",
			file, a, gfx.GFX1100, b, gfx.GFX1101)
	}
	return nil
}

// addObjects records GPU code for the manifest.
func (c *collector) addObjects(file string, objects []offload.CodeObjects) {
	for _, o := range objects {
		c.objects = append(c.objects, bundle.CodeObjects{File: file, Target: o.Target, Bytes: o.Bytes, Kernels: o.Kernels})
	}
}
