package build

import (
	"context"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/oci"
)

// layerInputs are the key of the image layer with the bundle.
type layerInputs struct {
	Bundle        string // the manifest's digest
	Epoch         int64
	Go            string
	Code, Modules string // digests of the code that writes it and of go.mod, which pins the compressor
}

// imageInputs are the key of a container image.
type imageInputs struct {
	Layer     layerInputs
	Command   string
	Copyright string // the text itself
	Version   string
}

// imageInto adds the container image to the delivery.
func (s *Session) imageInto(ctx context.Context, d *delivery) error {
	chosen, err := findBundle(d.packed, s.Settings.Embed)
	if err != nil {
		return err
	}
	dir, err := s.image(ctx, d.root, d.version, chosen)
	if err != nil {
		return err
	}
	return copyAll(dir, d.dir)
}

// image returns the directory of the stage with the container image of the command
// and a bundle.
func (s *Session) image(ctx context.Context, root, version string, chosen *recipe.Packed) (string, error) {
	work, err := os.MkdirTemp("", "go-rocm-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	in := imageInputs{Version: version}
	if in.Layer, err = s.layerInputs(root, chosen); err != nil {
		return "", err
	}
	command := filepath.Join(work, "go-rocm")
	if in.Command, err = s.bareCommand(ctx, root, command, version); err != nil {
		return "", err
	}
	components, err := linkedComponents(ctx, command)
	if err != nil {
		return "", err
	}
	terms, err := deb.CopyrightFile(components, s.Epoch)
	if err != nil {
		return "", err
	}
	in.Copyright = string(terms)
	layer, err := s.Recipe.Cache.Do(ctx, "oci-layer", in.Layer, func(ctx context.Context, dir string) error {
		return oci.WriteBundleLayer(ctx, chosen.Bundle.Dir, s.Epoch, filepath.Join(dir, layerName))
	})
	if err != nil {
		return "", err
	}
	res, err := s.Recipe.Cache.Do(ctx, "oci", in, func(ctx context.Context, dir string) error {
		digest, err := oci.Build(ctx, oci.Options{
			Version: version, Epoch: s.Epoch, Command: command, Copyright: terms,
			Bundle: chosen.Manifest, BundleLayer: filepath.Join(layer.Dir, layerName),
			Out: filepath.Join(dir, "go-rocm-"+version+"-linux-amd64.oci.tar"),
		})
		if err != nil {
			return err
		}
		return s.printf("image: %s", digest)
	})
	if err != nil {
		return "", err
	}
	return res.Dir, nil
}

func (s *Session) layerInputs(root string, p *recipe.Packed) (layerInputs, error) {
	in := layerInputs{Bundle: p.Manifest.Digest(), Epoch: s.Epoch.Unix(), Go: goVersion()}
	var err error
	if in.Code, err = stage.Digest(filepath.Join(root, "packaging", "oci")); err != nil {
		return in, err
	}
	in.Modules, err = linkedModules()
	return in, err
}

const layerName = "layer.tar.gz"
