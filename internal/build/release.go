package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/cli"
	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/packaging/deb"
	"forge.lthn.ai/core/go-rocm/packaging/manual"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// Build makes the bundles, puts one into the source tree to be compiled in,
// and compiles the command into the dist folder.
func Build() error {
	return within(func(ctx context.Context, s *Session) error {
		return s.deliver(ctx, s.buildInto)
	})
}

// Package makes what Build makes, and the Debian package.
func Package() error {
	return within(func(ctx context.Context, s *Session) error {
		return s.deliver(ctx, s.buildInto, s.packageInto)
	})
}

// Release makes everything that is published, with its checksums.
func Release() error {
	return within(func(ctx context.Context, s *Session) error { return s.release(ctx) })
}

func (s *Session) release(ctx context.Context) error {
	start := time.Now()
	root, err := Root()
	if err != nil {
		return err
	}
	// What cannot be signed is said now and not after an hour.
	if _, err := s.aptOptions(ctx, root); err != nil {
		return err
	}
	if _, err := s.minisigner(); err != nil {
		return err
	}
	if _, err := s.provenanceSigner(); err != nil {
		return err
	}
	if err := s.deliver(ctx, s.buildInto, s.packageInto, s.imageInto, s.moduleInto, s.attestInto, s.earlierModulesInto, s.aptInto, s.sumInto); err != nil {
		return err
	}
	return s.say("release: all done in %s", time.Since(start).Round(100*time.Millisecond))
}

// Clean removes the deliverables and the embedded bundle. Stages stay: they
// are keyed by their inputs and never stale.
func Clean() error {
	return within(func(_ context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		parts, err := filepath.Glob(filepath.Join(root, payloadDir, "llama-*"))
		if err != nil {
			return err
		}
		for _, name := range append(parts, s.dist(root), s.dist(root)+".part") {
			if err := os.RemoveAll(name); err != nil {
				return err
			}
		}
		return s.say("clean: removed %s and the embedded bundle; the stage cache in %s is kept", s.Settings.Dist, s.Settings.Cache)
	})
}

func (s *Session) dist(root string) string {
	if filepath.IsAbs(s.Settings.Dist) {
		return s.Settings.Dist
	}
	return filepath.Join(root, s.Settings.Dist)
}

// delivery is what the steps of a delivery share.
type delivery struct {
	root, dir, version string
	packed             []*recipe.Packed
}

// deliver fills a new dist folder by steps and puts it in place when all have
// ended well, so that a folder called dist is always whole.
func (s *Session) deliver(ctx context.Context, steps ...func(context.Context, *delivery) error) error {
	root, err := Root()
	if err != nil {
		return err
	}
	d := &delivery{root: root, dir: s.dist(root) + ".part"}
	if d.version, err = s.Version(root); err != nil {
		return err
	}
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return err
	}
	if err := os.RemoveAll(d.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil { //nolint:gosec // deliverables are public
		return err
	}
	for _, step := range steps {
		if err := step(ctx, d); err != nil {
			return errors.Join(err, os.RemoveAll(d.dir))
		}
	}
	old := s.dist(root) + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(s.dist(root), old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(d.dir, s.dist(root)); err != nil {
		return err
	}
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	return s.list(s.dist(root))
}

// list prints what is in a delivery, a folder by all that is in it.
func (s *Session) list(dir string) error {
	names, err := filesBelow(dir)
	if err != nil {
		return err
	}
	sizes := map[string]int64{}
	for _, name := range names {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		top, _, below := strings.Cut(name, "/")
		if below {
			top += "/"
		}
		sizes[top] += info.Size()
	}
	for _, name := range slices.Sorted(maps.Keys(sizes)) {
		if err := s.say("  %10.1f MB  %s", float64(sizes[name])/1e6, s.Settings.Dist+"/"+name); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) buildInto(ctx context.Context, d *delivery) (err error) {
	if d.packed, err = s.Bundles(ctx); err != nil {
		return err
	}
	if err := s.checkSizes(d.packed); err != nil {
		return err
	}
	for _, p := range d.packed {
		if err := copyInto(p.File, filepath.Join(d.dir, filepath.Base(p.File)), 0o644); err != nil {
			return err
		}
	}
	chosen, err := bundleOf(d.packed, s.Settings.Embed)
	if err != nil {
		return err
	}
	if err := s.EmbedBundle(d.root, chosen); err != nil {
		return err
	}
	return s.command(ctx, d.root, filepath.Join(d.dir, "go-rocm"), d.version)
}

// packageInputs key a Debian package.
type packageInputs struct {
	Command, Bundle, Version, Go string
	Packaging                    string // digest of the code and files that make it
	Epoch                        int64
}

func (s *Session) packageInto(ctx context.Context, d *delivery) error {
	chosen, err := bundleOf(d.packed, s.Settings.Embed)
	if err != nil {
		return err
	}
	dir, err := s.debian(ctx, d.root, d.version, chosen)
	if err != nil {
		return err
	}
	return copyAll(dir, d.dir)
}

// debian gives the folder of the stage that holds the Debian package of the
// command and a bundle.
func (s *Session) debian(ctx context.Context, root, version string, chosen *recipe.Packed) (string, error) {
	work, err := os.MkdirTemp("", "go-rocm-package-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	in := packageInputs{Bundle: chosen.Manifest.Digest(), Version: version, Go: builder(), Epoch: s.Epoch.Unix()}
	command := filepath.Join(work, "go-rocm")
	if in.Command, err = s.bareCommand(ctx, root, command, version); err != nil {
		return "", err
	}
	if in.Packaging, err = stage.Digest(filepath.Join(root, "packaging")); err != nil {
		return "", err
	}
	res, err := s.Recipe.Cache.Do(ctx, "deb", in, func(ctx context.Context, dir string) error {
		if err := checkBundle(ctx, chosen.Bundle.Dir, chosen.Manifest); err != nil {
			return err
		}
		pages := filepath.Join(work, "manual")
		if err := manual.Write(pages, cli.New(), manual.Options{Version: version, Date: s.Epoch}); err != nil {
			return err
		}
		o := deb.Options{Version: version, Epoch: s.Epoch, Command: command, BundleDir: chosen.Bundle.Dir, Manual: pages, OutDir: dir}
		if o.ModuleCache, err = goEnv(ctx, "GOMODCACHE"); err != nil {
			return err
		}
		if o.GoRoot, err = goEnv(ctx, "GOROOT"); err != nil {
			return err
		}
		_, err := deb.Build(ctx, o)
		return err
	})
	if err != nil {
		return "", err
	}
	return res.Dir, nil
}

// sumInto writes the list of digests and, with a key, its signature.
func (s *Session) sumInto(_ context.Context, d *delivery) error {
	signer, err := s.minisigner()
	if err != nil {
		return err
	}
	if err := release.WriteSums(d.dir); err != nil {
		return err
	}
	if signer == nil {
		return nil
	}
	list, err := os.ReadFile(filepath.Join(d.dir, release.SumsName))
	if err != nil {
		return err
	}
	sig, err := signer.Sign(list, "go-rocm "+d.version)
	if err != nil {
		return err
	}
	return publish(filepath.Join(d.dir, release.MinisignName), sig)
}

// minisigner opens the key for the list of digests; nil when none is given.
func (s *Session) minisigner() (*release.MinisignSigner, error) {
	if s.Settings.Minisign == "" {
		return nil, nil //nolint:nilnil // signing is asked for or it is not
	}
	text, err := os.ReadFile(s.Settings.Minisign)
	if err != nil {
		return nil, fmt.Errorf("GOROCM_MINISIGN_KEY: %w", err)
	}
	signer, err := release.ParseMinisignSigner(text, string(s.Settings.MinisignPass))
	if err != nil {
		return nil, fmt.Errorf("GOROCM_MINISIGN_KEY: %w", err)
	}
	return signer, nil
}

func copyAll(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if err := copyInto(filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyInto copies a deliverable.
func copyInto(from, to string, mode os.FileMode) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(mode), out.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", filepath.Base(from), err)
	}
	return nil
}
