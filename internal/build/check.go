package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Lint runs the checks that need neither a test nor a bundle.
func Lint() error {
	return within(prepared(nil, func(ctx context.Context, _ *Session, p ci.Project) error {
		return ci.Lint(ctx, os.Stdout, p)
	}))
}

// Test runs everything that proves the project by running it, on the real
// bundles, the command and the package; it makes them when they are missing.
func Test() error {
	return checkingProducts(func(ctx context.Context, s *Session, p ci.Project) error {
		return ci.Test(ctx, os.Stdout, p, s.hooks(p.Root))
	})
}

// CI runs what a change has to pass: lint and tests.
func CI() error {
	return checkingProducts(func(ctx context.Context, s *Session, p ci.Project) error {
		return ci.All(ctx, os.Stdout, p, s.hooks(p.Root))
	})
}

// checking runs tests of what is in the checkout.
func checking(f func(context.Context, *Session, ci.Project) error) error {
	return within(prepared(testPrograms, f))
}

// checkingProducts runs a check that also makes a release. That it cannot be
// delivered is said now and not after an hour.
func checkingProducts(f func(context.Context, *Session, ci.Project) error) error {
	return inCheckout(prepared(testPrograms, func(ctx context.Context, s *Session, p ci.Project) error {
		if err := s.replaceable(p.Root, willHave(s.lasting()...)); err != nil {
			return err
		}
		return f(ctx, s, p)
	}))
}

// prepared has programs at hand before f runs.
func prepared(programs []program, f func(context.Context, *Session, ci.Project) error) func(context.Context, *Session) error {
	return func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		if err := s.prepare(ctx, programs); err != nil {
			return err
		}
		return f(ctx, s, ci.Project{Root: root, Cache: s.Settings.Cache})
	}
}

// hooks are the products that the tests run on. The bundles come before the
// delivery, so that a failed compile is told as such.
func (s *Session) hooks(root string) ci.Hooks {
	packed := func(ctx context.Context, variant, flavour string) (*recipe.Packed, error) {
		v, err := recipe.VariantNamed(variant)
		if err != nil {
			return nil, err
		}
		if v, err = v.In(flavour); err != nil {
			return nil, err
		}
		if err := s.prepare(ctx, buildPrograms); err != nil {
			return nil, err
		}
		return s.Recipe.Pack(ctx, v)
	}
	pack := func(variant, flavour string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			p, err := packed(ctx, variant, flavour)
			if err != nil {
				return "", err
			}
			if flavour == bundle.FlavourSystem { // the release, which checks the others, need not hold it
				err = s.checkSizes([]*recipe.Packed{p})
			}
			return p.File, err
		}
	}
	// What is not about the bundle is tested on deliverables around the small one.
	small := func(of func(ctx context.Context, version string, p *recipe.Packed) (string, error)) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			p, err := packed(ctx, "cpu", bundle.FlavourHermetic)
			if err != nil {
				return "", err
			}
			version, err := s.Version(root)
			if err != nil {
				return "", err
			}
			return of(ctx, version, p)
		}
	}
	return ci.Hooks{Products: []ci.Product{
		{Name: "cpu bundle", Env: ci.EnvBundle, Make: pack("cpu", bundle.FlavourHermetic)},
		{Name: "hip bundle", Env: ci.EnvHIPBundle, Make: pack("hip", bundle.FlavourHermetic)},
		{Name: "system bundle", Env: ci.EnvSystemBundle, Make: pack("hip", bundle.FlavourSystem)},
		{Name: "llama.cpp source", Env: ci.EnvSource, Make: func(ctx context.Context) (string, error) {
			src, err := recipe.Source(ctx, s.Recipe.Cache, s.Recipe.Lock, s.Recipe.Source, s.Out)
			if err != nil {
				return "", err
			}
			return src.Dir, nil
		}},
		{Name: "release", Env: ci.EnvCLI, Make: func(ctx context.Context) (string, error) {
			// With every stage cached nothing has needed the engine yet; the
			// tests do, several at once, and must not each start one.
			if _, err := s.engine.get(ctx); err != nil {
				return "", err
			}
			return filepath.Join(s.dist(root), "go-rocm"), s.release(ctx)
		}},
		{Name: "packages", Env: ci.EnvDeb, Make: func(context.Context) (string, error) {
			return each(s.dist(root), "go-rocm_*.deb", "go-rocm-llama-"+s.Settings.Embed+"_*.deb")
		}},
		{Name: "small packages", Env: ci.EnvSmallDeb, Make: small(func(ctx context.Context, version string, p *recipe.Packed) (string, error) {
			command, err := s.commandDeb(ctx, root, version)
			if err != nil {
				return "", err
			}
			llama, err := s.bundleDeb(ctx, root, version, p)
			if err != nil {
				return "", err
			}
			first, err := only(command, "*.deb")
			if err != nil {
				return "", err
			}
			second, err := only(llama, "*.deb")
			return first + string(filepath.ListSeparator) + second, err
		})},
		{Name: "small image", Env: ci.EnvSmallImage, Make: small(func(ctx context.Context, version string, p *recipe.Packed) (string, error) {
			dir, err := s.image(ctx, root, version, p)
			if err != nil {
				return "", err
			}
			return only(dir, "*.oci.tar")
		})},
	}, More: []ci.Step{
		{Name: "reproduce", Needs: []string{"release"}, Limit: 40 * time.Minute, Run: func(ctx context.Context, _ io.Writer) (ci.Count, error) {
			takes, err := s.takenInCI()
			if err != nil {
				return ci.Count{}, err
			}
			return ci.Count{}, s.reproduce(ctx, root, s.dist(root), takes)
		}},
	}}
}

// What a run may have taken for a second compile of the core to begin, and for a
// second build at all: a whole run must end within 75 minutes.
const (
	coreTime  = 55 * time.Minute
	buildTime = 65 * time.Minute
)

// takenInCI is what the second build of a check takes over: the images, the HIP
// module, of which it compiles a sample, and after a long run the core. What a
// run has no time for is left to the next one, which finds the first build in its
// cache; the error is ci.ErrNotDone then.
func (s *Session) takenInCI() ([]string, error) {
	takes := []string{"toolchain", "compile-hip"}
	switch took := time.Since(s.began); {
	case took > buildTime:
		return nil, fmt.Errorf("%w: the run has taken %s already, and a second build takes ten minutes more; the next run does it", ci.ErrNotDone, took.Round(time.Minute))
	case took > coreTime:
		takes = append(takes, "compile-core")
	}
	return takes, nil
}

// each finds one file of each kind in dir, separated as in PATH.
func each(dir string, patterns ...string) (string, error) {
	var found []string
	for _, p := range patterns {
		file, err := only(dir, p)
		if err != nil {
			return "", err
		}
		found = append(found, file)
	}
	return strings.Join(found, string(filepath.ListSeparator)), nil
}

// only finds the one file of its kind in dir.
func only(dir, pattern string) (string, error) {
	found, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s holds %d files %s, expected one: %v", dir, len(found), pattern, found)
	}
	return found[0], nil
}
