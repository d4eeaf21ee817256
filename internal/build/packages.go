package build

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/cli"
	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/manual"
)

// packageInputs key a Debian package.
type packageInputs struct {
	Content            string // digest of the command or of the bundle
	Llama              string // what the command asks for
	Version            string
	Revision           string
	Maintainer         string
	Epoch              int64
	Go                 string
	Packaging, Modules string // digests of the code and files that make it
}

// packageInto puts the Debian packages among the deliverables: that of the
// command, and one for each bundle.
func (s *Session) packageInto(ctx context.Context, d *delivery) error {
	dir, err := s.commandDeb(ctx, d.root, d.version)
	if err != nil {
		return err
	}
	if err := copyAll(dir, d.dir); err != nil {
		return err
	}
	for _, p := range d.packed {
		if dir, err = s.bundleDeb(ctx, d.root, d.version, p); err != nil {
			return err
		}
		if err := copyAll(dir, d.dir); err != nil {
			return err
		}
	}
	return nil
}

// packageOptions are what every package is made with; the stage that makes it
// says where.
func (s *Session) packageOptions(version, revision string) deb.Options {
	return deb.Options{Version: version, Revision: revision, Epoch: s.Epoch, Maintainer: s.Settings.Maintainer}
}

// inputs key a package that is made of content by o and the code in folders.
func (s *Session) inputs(root string, o deb.Options, content string, folders ...string) (packageInputs, error) {
	in := packageInputs{
		Content: content, Version: o.Version, Revision: cmp.Or(o.Revision, "1"), Maintainer: o.Maintainer, Epoch: o.Epoch.Unix(), Go: builder(),
	}
	for _, f := range folders {
		digest, err := stage.Digest(filepath.Join(root, "packaging", f))
		if err != nil {
			return in, err
		}
		in.Packaging += digest
	}
	var err error
	in.Modules, err = stage.FileDigest(filepath.Join(root, "go.mod"))
	return in, err
}

// commandDeb gives the folder of the stage that holds the command's Debian
// package.
func (s *Session) commandDeb(ctx context.Context, root, version string) (string, error) {
	work, err := os.MkdirTemp("", "go-rocm-package-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	c := deb.Command{Program: filepath.Join(work, "go-rocm"), LlamaVersion: s.Recipe.Lock.Tag, Manual: filepath.Join(work, "manual")}
	content, err := s.bareCommand(ctx, root, c.Program, version)
	if err != nil {
		return "", err
	}
	o := s.packageOptions(version, "")
	in, err := s.inputs(root, o, content, "deb", "assets", "manual", "origin")
	if err != nil {
		return "", err
	}
	in.Llama = c.LlamaVersion
	res, err := s.Recipe.Cache.Do(ctx, "deb", in, func(ctx context.Context, dir string) error {
		if err := manual.Write(c.Manual, cli.New(), manual.Options{Version: version, Date: s.Epoch}); err != nil {
			return err
		}
		if c.ModuleCache, err = goEnv(ctx, "GOMODCACHE"); err != nil {
			return err
		}
		if c.GoRoot, err = goEnv(ctx, "GOROOT"); err != nil {
			return err
		}
		o.OutDir = dir
		_, err := deb.BuildCommand(ctx, o, c)
		return err
	})
	if err != nil {
		return "", err
	}
	return res.Dir, nil
}

// bundleDeb gives the folder of the stage that holds a bundle's Debian
// package. The newest that is published stays as it is, version included, for as
// long as it says the same: who has it does not fetch it again with each release
// of the command.
func (s *Session) bundleDeb(ctx context.Context, root, version string, p *recipe.Packed) (string, error) {
	before, err := s.published(root)
	if err != nil {
		return "", err
	}
	if before != "" {
		name := deb.BundlePackageName(p.Manifest)
		last, digest, err := apt.NewestVersion(filepath.Join(before, aptDir), aptSuite, name)
		if err != nil {
			return "", err
		}
		if v, revision, ok := deb.SemVerFromDebian(last); ok {
			dir, err := s.bundleDebOf(ctx, root, v, revision, p)
			if err != nil {
				return "", err
			}
			same, err := holds(dir, digest)
			if err != nil {
				return "", err
			}
			if same {
				return dir, s.say("package %s: unchanged since %s", name, last)
			}
		}
	}
	return s.bundleDebOf(ctx, root, version, "", p)
}

// holds tells whether the one package in dir has a digest.
func holds(dir, digest string) (bool, error) {
	file, err := only(dir, "*.deb")
	if err != nil {
		return false, err
	}
	have, err := stage.FileDigest(file)
	return have == digest, err
}

func (s *Session) bundleDebOf(ctx context.Context, root, version, revision string, p *recipe.Packed) (string, error) {
	o := s.packageOptions(version, revision)
	o.Epoch = time.Unix(p.Manifest.SourceDateEpoch, 0) // that of the bundle, not of this build
	in, err := s.inputs(root, o, p.Manifest.Digest(), "deb", "assets", "origin")
	if err != nil {
		return "", err
	}
	res, err := s.Recipe.Cache.Do(ctx, "deb-bundle", in, func(ctx context.Context, dir string) error {
		o.OutDir = dir
		if _, err := deb.BuildBundle(ctx, o, p.Bundle.Dir); err != nil {
			return fmt.Errorf("%w; if the cached bundle was changed, remove %s and build again", err, filepath.Dir(p.Bundle.Dir))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return res.Dir, nil
}
