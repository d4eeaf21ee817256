package recipe

import (
	"archive/tar"
	"context"
	"errors"
	"io"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
)

// available returns the variant without the modules that it contains only in addition, if the build
// has a base image: that need not have their tools, and an older release may not have them at all.
func (r *Recipe) available(v Variant) Variant {
	if b, ok := backendByName(v.Name); ok && r.toolchainSpec(v.Set).HasBaseImage() {
		b.With = nil
		v.Components = b.variant().Components
	}
	return v
}

// images returns the toolchains that the libraries of a variant come from: that of its own set first,
// then those of the modules that it contains in addition.
func (r *Recipe) images(ctx context.Context, v Variant) ([]*toolchain.Toolchain, error) {
	sets := []toolchain.Set{v.Set}
	for _, b := range backendsOf(v) {
		if b.Set != v.Set {
			sets = append(sets, b.Set)
		}
	}
	var all []*toolchain.Toolchain
	for _, set := range sets {
		t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(set), r.Log)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// Packages returns the packages of all images of a variant, and the toolchain of its own set.
func (r *Recipe) Packages(ctx context.Context, v Variant) ([]toolchain.Package, *toolchain.Toolchain, error) {
	images, err := r.images(ctx, r.available(v))
	if err != nil {
		return nil, nil, err
	}
	packages, _ := toolchain.Merge(images)
	return packages, images[0], nil
}

// module has the decisions about the libraries of one backend, which key its bundles.
type module struct {
	Name   string
	Opened []elfdep.Decision
}

// moduleDecisions returns the decisions of those backends of a variant that have any.
func moduleDecisions(v Variant) []module {
	var all []module
	for _, b := range backendsOf(v) {
		if len(b.Opened) > 0 {
			all = append(all, module{b.Name, b.Opened})
		}
	}
	return all
}

// imageFiles are the files of several images. Those of the first have precedence.
type imageFiles []engine.Files

// openImages opens the files of images.
func openImages(ctx context.Context, eng engine.Engine, images []*toolchain.Toolchain) (imageFiles, error) {
	var all imageFiles
	for _, t := range images {
		f, err := eng.Files(ctx, t.ID)
		if err != nil {
			return nil, errors.Join(err, all.Close())
		}
		all = append(all, f)
	}
	return all, nil
}

// Stat returns the entry of the first image that has path.
func (f imageFiles) Stat(ctx context.Context, path string) (e engine.Entry, err error) {
	for _, image := range f {
		if e, err = image.Stat(ctx, path); !errors.Is(err, engine.ErrNotExist) {
			return e, err
		}
	}
	return e, err
}

// Walk streams the file or directory of the first image that has path.
func (f imageFiles) Walk(ctx context.Context, path string, visit func(*tar.Header, io.Reader) error) (err error) {
	for _, image := range f {
		if err = image.Walk(ctx, path, visit); !errors.Is(err, engine.ErrNotExist) {
			return err
		}
	}
	return err
}

// each calls visit with each image, the first last, so that what it says about a file of several
// images replaces what the others say.
func (f imageFiles) each(visit func(engine.Files) error) error {
	for i := range f {
		if err := visit(f[len(f)-1-i]); err != nil {
			return err
		}
	}
	return nil
}

// Close closes the files of all images.
func (f imageFiles) Close() error {
	var errs []error
	for _, image := range f {
		errs = append(errs, image.Close())
	}
	return errors.Join(errs...)
}
