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

// packageInputs are the key of a Debian package.
type packageInputs struct {
	Content            string // digest of the command or of the bundle
	Llama              string // version of llama.cpp that the command requires
	Version            string
	Revision           string
	Maintainer         string
	Epoch              int64
	Go                 string
	Packaging, Modules string // digests of the code and files that it is built from
	Recompress         string // the program that compresses the data archive, of bundles alone
	Page               string `json:",omitempty"` // digest of the web page in the command
}

// packageInto adds the Debian packages to the delivery: that of the command, and
// one for each bundle.
func (s *Session) packageInto(ctx context.Context, d *delivery) error {
	dir, err := s.commandDeb(ctx, d.root, d.version, d.page)
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
		if err := s.checkFileSize(p, recipe.CheckPackageSize, "*.deb", dir); err != nil {
			return err
		}
		if err := copyAll(dir, d.dir); err != nil {
			return err
		}
	}
	return nil
}

// packageOptions returns the options that all packages share. The output directory
// is that of the stage.
func (s *Session) packageOptions(version, revision string) deb.Options {
	return deb.Options{Version: version, Revision: revision, Epoch: s.Epoch, Maintainer: s.Settings.Maintainer}
}

// checkPackageVersion rejects a version that cannot be packaged, before anything is built.
func (s *Session) checkPackageVersion(root string) error {
	version, err := s.Version(root)
	if err != nil {
		return err
	}
	return deb.CheckChangelogDate(s.packageOptions(version, ""))
}

// packageInputs returns the key of a package that is built from content with the
// options o by the code in directories below packaging.
func (s *Session) packageInputs(root string, o deb.Options, content string, dirs ...string) (packageInputs, error) {
	in := packageInputs{
		Content: content, Version: o.Version, Revision: cmp.Or(o.Revision, "1"), Maintainer: o.Maintainer, Epoch: o.Epoch.Unix(), Go: goVersion(),
	}
	for _, dir := range dirs {
		digest, err := stage.Digest(filepath.Join(root, "packaging", dir))
		if err != nil {
			return in, err
		}
		in.Packaging += digest
	}
	var err error
	in.Modules, err = linkedModules()
	return in, err
}

// commandDeb returns the directory of the stage with the command's Debian package.
func (s *Session) commandDeb(ctx context.Context, root, version string, page *recipe.Page) (string, error) {
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
	in, err := s.packageInputs(root, o, content, "deb", "assets", "manual", "licences")
	if err != nil {
		return "", err
	}
	in.Llama = c.LlamaVersion
	if page != nil {
		c.Page, in.Page = page.Components(), page.Output
	}
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

// bundleDeb returns the directory of the stage with a bundle's Debian package. While
// the bundle is unchanged, the newest published package is used again, version
// included: users do not download it again for each release of the command.
func (s *Session) bundleDeb(ctx context.Context, root, version string, p *recipe.Packed) (string, error) {
	before, err := s.publishedRoot(root)
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
			dir, err := s.bundleDebAt(ctx, root, v, revision, p)
			if err != nil {
				return "", err
			}
			same, err := hasDigest(dir, digest)
			if err != nil {
				return "", err
			}
			if same {
				return dir, s.printf("package %s: unchanged since %s", name, last)
			}
		}
	}
	return s.bundleDebAt(ctx, root, version, "", p)
}

// hasDigest reports whether the one package in dir has a digest.
func hasDigest(dir, digest string) (bool, error) {
	file, err := findOne(dir, "*.deb")
	if err != nil {
		return false, err
	}
	have, err := stage.FileDigest(file)
	return have == digest, err
}

// bundleDebAt is bundleDeb for a given version and revision of the package.
func (s *Session) bundleDebAt(ctx context.Context, root, version, revision string, p *recipe.Packed) (string, error) {
	o := s.packageOptions(version, revision)
	o.Epoch = time.Unix(p.Manifest.SourceDateEpoch, 0) // the time of the bundle, not of this build
	in, err := s.packageInputs(root, o, p.Manifest.Digest(), "deb", "assets", "licences")
	if err != nil {
		return "", err
	}
	if s.recompressor != nil {
		smaller, err := s.recompressor(ctx)
		if err != nil {
			return "", err
		}
		o.Recompress, in.Recompress = smaller.Run, smaller.Key()
	}
	res, err := s.Recipe.Cache.Do(ctx, "deb-bundle", in, func(ctx context.Context, dir string) error {
		o.OutDir = dir
		if _, err := deb.BuildBundle(ctx, o, p.Bundle.Dir); err != nil {
			return fmt.Errorf("%w; if the cached bundle was modified, remove %s and build again", err, filepath.Dir(p.Bundle.Dir))
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return res.Dir, nil
}
