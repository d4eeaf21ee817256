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

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// Build makes the bundles, puts one into the source tree to be compiled in,
// and compiles the command into the dist folder.
func Build() error {
	return inCheckout(func(ctx context.Context, s *Session) error {
		return s.deliver(ctx, nil, s.buildInto)
	})
}

// Package makes what Build makes, and the Debian packages.
func Package() error {
	return inCheckout(func(ctx context.Context, s *Session) error {
		return s.deliver(ctx, nil, s.buildInto, s.packageInto)
	})
}

// Release makes everything that is published, with its checksums. As the
// settings ask, what does not come out the same a second time is not delivered.
func Release() error {
	return inCheckout(func(ctx context.Context, s *Session) error {
		if s.Settings.Twice() {
			return s.release(ctx, s.provenInto)
		}
		return s.release(ctx)
	})
}

// release delivers everything that is published; more are further steps at the
// end.
func (s *Session) release(ctx context.Context, more ...step) error {
	start := time.Now()
	root, err := Root()
	if err != nil {
		return err
	}
	// What cannot be signed is said now and not after an hour.
	if _, err := s.publicKeys(ctx, root); err != nil {
		return err
	}
	if err := s.committed(ctx, root); err != nil {
		return err
	}
	steps := []step{s.buildInto, s.packageInto, s.imageInto, s.moduleInto, s.attestInto, s.earlierModulesInto, s.aptInto, s.sumInto, s.receive}
	if err := s.deliver(ctx, s.lasting(), append(steps, more...)...); err != nil {
		return err
	}
	return s.say("release: all done in %s", time.Since(start).Round(100*time.Millisecond))
}

// Clean removes the deliverables and the embedded bundle. Stages stay: they
// are keyed by their inputs and never stale.
func Clean() error {
	return inCheckout(func(_ context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		if err := s.clean(root); err != nil {
			return err
		}
		parts, err := filepath.Glob(filepath.Join(root, payloadDir, "llama-*"))
		if err != nil {
			return err
		}
		for _, name := range parts {
			if err := os.Remove(name); err != nil {
				return err
			}
		}
		return s.say("clean: removed %s and the embedded bundle; the stage cache in %s is kept", s.Settings.Dist, s.Settings.Cache)
	})
}

// delivery is what the steps of a delivery share.
type delivery struct {
	root, dir, version string
	packed             []*recipe.Packed
}

// step adds something to a delivery, or checks it.
type step func(context.Context, *delivery) error

// deliver fills a new dist folder by steps and puts it in place when all have
// ended well, so that a folder called dist is always whole. lasting is what the
// delivery will have of what tells what is published.
func (s *Session) deliver(ctx context.Context, lasting []string, steps ...step) error {
	root, err := Root()
	if err != nil {
		return err
	}
	d := &delivery{root: root, dir: s.dist(root) + partMark}
	if d.version, err = s.Version(root); err != nil {
		return err
	}
	if err := s.replaceable(root, willHave(lasting...)); err != nil {
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
	for _, step := range append(slices.Clip(steps), s.place) {
		if err := step(ctx, d); err != nil {
			return errors.Join(err, os.RemoveAll(d.dir))
		}
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
	return s.command(ctx, d.root, filepath.Join(d.dir, commandName), d.version)
}

// sumInto writes the list of digests and its signatures by the keys that are
// given.
func (s *Session) sumInto(ctx context.Context, d *delivery) error {
	if err := release.WriteChecksums(ctx, d.dir); err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(d.dir, release.ChecksumsFile))
	if err != nil {
		return err
	}
	signer, err := s.minisigner()
	if err != nil {
		return err
	}
	if signer != nil {
		sig, err := signer.Sign(list, "go-rocm "+d.version)
		if err != nil {
			return err
		}
		if err := publish(filepath.Join(d.dir, release.MinisignFile), sig); err != nil {
			return err
		}
	}
	o, err := s.aptOptions(ctx, d.root)
	if err != nil || o == nil || o.Keys == nil {
		return err
	}
	sig, err := o.Keys.Sign(list, o.Date)
	if err != nil {
		return err
	}
	return publish(filepath.Join(d.dir, release.OpenPGPFile), sig)
}

// receive checks a delivery as those do who get it: with the public half of each
// key that was given, so that none is delivered whose signature is missing.
func (s *Session) receive(ctx context.Context, d *delivery) error {
	keys, err := s.publicKeys(ctx, d.root)
	if err != nil || keys == (release.TrustedKeys{}) {
		return err
	}
	r, err := release.Verify(ctx, d.dir, keys)
	if err != nil {
		return fmt.Errorf("the release is not what its receivers would accept: %w", err)
	}
	return s.say("signed: %s", strings.Join(r.Signatures, ", "))
}

// publicKeys are the public halves of the keys that are given.
func (s *Session) publicKeys(ctx context.Context, root string) (keys release.TrustedKeys, err error) {
	mini, err := s.minisigner()
	if err != nil {
		return keys, err
	}
	if mini != nil {
		keys.Minisign = mini.Verifier()
	}
	provenance, err := s.provenanceSigner()
	if err != nil {
		return keys, err
	}
	if provenance != nil {
		keys.Provenance = provenance.Verifier()
	}
	o, err := s.aptOptions(ctx, root)
	if err != nil || o == nil || o.Keys == nil {
		return keys, err
	}
	text, err := o.Keys.Keyring()
	if err != nil {
		return keys, err
	}
	keys.OpenPGP, err = release.ParseOpenPGPVerifier(text)
	return keys, err
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
