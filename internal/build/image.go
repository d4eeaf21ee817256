package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/packaging/assets"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/oci"
)

// imageInputs are the key of a container image.
type imageInputs struct {
	Layer         string // digest of the package whose data archive is the layer with the bundle
	Recompress    string // the program that compresses the layer with the command
	Epoch         int64
	Go            string
	Code, Modules string // digests of the code that writes it and of the modules that it uses
	Command       string
	Copyright     string // the text itself
	Version       string
}

// imageInto adds the container image to the delivery.
func (s *Session) imageInto(ctx context.Context, d *delivery) error {
	chosen, err := findBundle(d.packed, s.Settings.Embed)
	if err != nil {
		return err
	}
	dir, err := s.image(ctx, d.root, d.version, chosen, d.page)
	if err != nil {
		return err
	}
	if err := s.checkFileSize(chosen, recipe.CheckImageSize, "*.oci.tar", dir); err != nil {
		return err
	}
	return copyAll(dir, d.dir)
}

// monitoringInto adds the dashboard for Grafana and the rules for Prometheus to the
// delivery, for those who install neither the package nor the image.
func (s *Session) monitoringInto(_ context.Context, d *delivery) error {
	for _, name := range []string{"alerts.yml", "dashboard.json"} {
		text, err := assets.Monitoring.ReadFile("monitoring/" + name)
		if err != nil {
			return err
		}
		if err := writePublic(filepath.Join(d.dir, "go-rocm-"+name), text); err != nil {
			return err
		}
	}
	return nil
}

// image returns the directory of the stage with the container image of the command
// and a bundle.
func (s *Session) image(ctx context.Context, root, version string, chosen *recipe.Packed, page *recipe.Page) (string, error) {
	work, err := os.MkdirTemp("", "go-rocm-image-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	in := imageInputs{Version: version, Epoch: s.Epoch.Unix(), Go: goVersion()}
	// The bundle is compressed once, for its package and for the image.
	dir, err := s.bundleDeb(ctx, root, version, chosen)
	if err != nil {
		return "", err
	}
	bundle, err := findOne(dir, "*.deb")
	if err != nil {
		return "", err
	}
	if in.Layer, err = stage.FileDigest(bundle); err != nil {
		return "", err
	}
	for _, dir := range []string{"oci", "assets"} {
		digest, err := stage.Digest(filepath.Join(root, "packaging", dir))
		if err != nil {
			return "", err
		}
		in.Code += digest
	}
	if in.Modules, err = linkedModules(); err != nil {
		return "", err
	}
	command := filepath.Join(work, "go-rocm")
	if in.Command, err = s.bareCommand(ctx, root, command, version); err != nil {
		return "", err
	}
	components, err := linkedComponents(ctx, command, page)
	if err != nil {
		return "", err
	}
	terms, err := deb.CopyrightFile(components, s.Epoch)
	if err != nil {
		return "", err
	}
	in.Copyright = string(terms)
	o := oci.Options{Version: version, Epoch: s.Epoch, Command: command, Copyright: terms, Bundle: chosen.Manifest}
	if s.recompressor != nil {
		smaller, err := s.recompressor(ctx)
		if err != nil {
			return "", err
		}
		o.Recompress, in.Recompress = smaller.Run, smaller.Key()
	}
	res, err := s.Recipe.Cache.Do(ctx, "oci", in, func(ctx context.Context, dir string) error {
		o.BundleLayer = filepath.Join(work, "layer.tar.zst")
		if err := copyData(ctx, bundle, o.BundleLayer); err != nil {
			return err
		}
		o.Out = filepath.Join(dir, "go-rocm-"+version+"-linux-amd64.oci.tar")
		digest, err := oci.Build(ctx, o)
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

// copyData writes the data archive of a package to the file to.
func copyData(ctx context.Context, pkg, to string) error {
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(deb.CopyData(ctx, pkg, f), f.Close())
}
