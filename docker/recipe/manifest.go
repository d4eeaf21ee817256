package recipe

import (
	"cmp"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/offload"
)

// writeManifest records the inputs and the contents of the bundle.
func (c *collector) writeManifest() error {
	r := c.recipe
	m := bundle.Manifest{
		Schema: bundle.Schema, Name: "llama-" + c.variant.Label(), Variant: c.variant.Name,
		Flavour: bundle.FlavourHermetic, Version: r.Lock.Tag, Targets: c.targets,
		Source:          bundle.Source{Tag: r.Lock.Tag, URL: r.Lock.URL, Tree: r.Lock.Tree},
		Toolchain:       c.toolchainRecord(),
		SourceDateEpoch: r.Lock.Epoch,
		Entry:           bundle.Entry{Loader: loaderName, Program: serverName},
		CodeObjects:     c.objects, Excluded: c.excluded, Host: c.host,
	}
	if c.variant.Flavour != "" {
		m.Flavour = c.variant.Flavour
	}
	var err error
	if m.Stages, err = c.stages(); err != nil {
		return err
	}
	if c.linked != nil {
		m.Stages = append(m.Stages, c.linked.Stage())
	}
	slices.SortFunc(m.Excluded, func(a, b bundle.Excluded) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.CodeObjects, func(a, b bundle.CodeObjects) int {
		return strings.Compare(a.File+" "+a.Target.String(), b.File+" "+b.Target.String())
	})
	entries, err := elfFiles(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		base := filepath.Base(e)
		parts, err := c.parts(e)
		if err != nil {
			return err
		}
		m.Files = append(m.Files, bundle.File{Path: base, Needed: c.libs.needed[base], Parts: parts})
	}
	full, err := bundle.Build(c.dir, m)
	if err != nil {
		return err
	}
	return bundle.WriteManifest(c.dir, full)
}

// toolchainRecord returns the manifest's entry about the toolchain.
func (c *collector) toolchainRecord() bundle.Toolchain {
	spec := c.recipe.toolchainSpec(c.variant.Set)
	t := bundle.Toolchain{
		Kind: spec.Name(), BaseDigest: c.image,
		Locked: len(c.deviations) == 0 && !spec.HasBaseImage(), Deviations: c.deviations,
	}
	for _, p := range c.packages {
		t.Packages = append(t.Packages, bundle.Package(p))
	}
	slices.SortFunc(t.Packages, func(a, b bundle.Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Arch, b.Arch))
	})
	return t
}

// stages returns the manifest's entries about the compiles.
func (c *collector) stages() ([]bundle.Stage, error) {
	src, err := c.recipe.cachedSource()
	if err != nil {
		return nil, err
	}
	var out []bundle.Stage
	for _, name := range c.variant.Components {
		in, err := c.recipe.compileInputs(components(c.recipe.Lock, c.recipe.Targets)[name], src, c.toolchain)
		if err != nil {
			return nil, err
		}
		res := c.compiled[name]
		out = append(out, bundle.Stage{Name: res.Name, Digest: res.Key, Output: res.Output, Env: in.Env, Options: in.Options})
	}
	return out, nil
}

// parts returns the extents that only one target needs of a file with code for several, so that a
// machine with one target need not store the others.
func (c *collector) parts(path string) ([]bundle.Part, error) {
	if len(c.targets) < 2 {
		return nil, nil
	}
	shares, err := offload.ReadTargetExtents(path)
	if errors.Is(err, offload.ErrNoFatBinary) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	parts := make([]bundle.Part, len(c.targets))
	for i, t := range c.targets {
		parts[i].Target = t
		for _, s := range shares {
			if s.Target != t {
				continue
			}
			for _, x := range s.Extents {
				parts[i].Extents = append(parts[i].Extents, bundle.Extent(x))
			}
		}
	}
	return parts, nil
}
