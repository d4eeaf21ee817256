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

// Lint runs the checks that run no test and need no bundle.
func Lint() error {
	return withSession(withPrograms(nil, func(ctx context.Context, _ *Session, p ci.Project) error {
		return ci.Lint(ctx, os.Stdout, p)
	}))
}

// Unit runs the tests that need no bundle, container or network.
func Unit() error {
	return withSession(withPrograms(nil, func(ctx context.Context, _ *Session, p ci.Project) error {
		return ci.Unit(ctx, os.Stdout, p)
	}))
}

// Test runs all tests, on the real bundles, the command and the packages as well,
// and builds those that are missing.
func Test() error {
	return withRelease(func(ctx context.Context, s *Session, p ci.Project) error {
		return ci.Test(ctx, os.Stdout, p, s.hooks(p.Root))
	})
}

// CI runs lint and all tests. Every change has to pass it.
func CI() error {
	return withRelease(func(ctx context.Context, s *Session, p ci.Project) error {
		return ci.All(ctx, os.Stdout, p, s.hooks(p.Root))
	})
}

// withRelease runs a check that also builds a release. It reports a dist directory
// that cannot be replaced now and not after an hour.
func withRelease(f func(context.Context, *Session, ci.Project) error) error {
	return withCheckout(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) error {
		if err := s.checkReplaceable(p.Root, oneOf(s.publicationRecords()...)); err != nil {
			return err
		}
		return f(ctx, s, p)
	}))
}

// withPrograms returns a function that checks that programs are installed and then
// calls f.
func withPrograms(programs []program, f func(context.Context, *Session, ci.Project) error) func(context.Context, *Session) error {
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

// hooks returns the products under test. The bundles are built before the release,
// so that a failed compile is reported as a step of its own.
func (s *Session) hooks(root string) ci.Hooks {
	packed := func(ctx context.Context, variant, flavour string) (*recipe.Packed, error) {
		v, err := recipe.VariantByName(variant)
		if err != nil {
			return nil, err
		}
		if v, err = v.WithFlavour(flavour); err != nil {
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
			if flavour == bundle.FlavourSystem { // the release, which checks the others, may lack it
				err = s.checkSizes([]*recipe.Packed{p})
			}
			return p.File, err
		}
	}
	// Tests that are not about the bundle run on deliverables with the small one.
	small := func(build func(ctx context.Context, version string, p *recipe.Packed) (string, error)) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			p, err := packed(ctx, "cpu", bundle.FlavourHermetic)
			if err != nil {
				return "", err
			}
			version, err := s.Version(root)
			if err != nil {
				return "", err
			}
			return build(ctx, version, p)
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
		{Name: "test-backend-ops", Env: ci.EnvBackendOps, Make: func(ctx context.Context) (string, error) {
			if err := s.prepare(ctx, buildPrograms); err != nil {
				return "", err
			}
			return s.Recipe.BackendOps(ctx)
		}},
		{Name: "lavapipe", Env: ci.EnvLavapipe, Make: s.mesa},
		{Name: "release", Env: ci.EnvCLI, Make: func(ctx context.Context) (string, error) {
			// If every stage is cached, nothing has started the engine yet. The tests
			// need it, several at once, and must not each start one.
			if _, err := s.engine.get(ctx); err != nil {
				return "", err
			}
			return filepath.Join(s.dist(root), "go-rocm"), s.release(ctx)
		}},
		{Name: "packages", Env: ci.EnvDeb, Make: func(context.Context) (string, error) {
			return findEach(s.dist(root), "go-rocm_*.deb", "go-rocm-llama-"+s.Settings.Embed+"_*.deb")
		}},
		{Name: "small packages", Env: ci.EnvSmallDeb, Make: small(func(ctx context.Context, version string, p *recipe.Packed) (string, error) {
			page, err := s.embeddedPage(ctx, root)
			if err != nil {
				return "", err
			}
			command, err := s.commandDeb(ctx, root, version, page)
			if err != nil {
				return "", err
			}
			llama, err := s.bundleDeb(ctx, root, version, p)
			if err != nil {
				return "", err
			}
			first, err := findOne(command, "*.deb")
			if err != nil {
				return "", err
			}
			second, err := findOne(llama, "*.deb")
			return first + string(filepath.ListSeparator) + second, err
		})},
		{Name: "small image", Env: ci.EnvSmallImage, Make: small(func(ctx context.Context, version string, p *recipe.Packed) (string, error) {
			page, err := s.embeddedPage(ctx, root)
			if err != nil {
				return "", err
			}
			dir, err := s.image(ctx, root, version, p, page)
			if err != nil {
				return "", err
			}
			return findOne(dir, "*.oci.tar")
		})},
	}, More: []ci.Step{
		{Name: "reproduce", Needs: []string{"release"}, Limit: 40 * time.Minute, Run: func(ctx context.Context, out io.Writer) (ci.Count, error) {
			reuse, err := s.reusedInCI()
			if err != nil {
				return ci.Count{}, err
			}
			return ci.Count{}, s.writingTo(out).reproduce(ctx, root, s.dist(root), reuse)
		}},
	}}
}

// A whole run must finish within 75 minutes. After coreDeadline a run no longer
// compiles the core and the Vulkan module a second time, after buildDeadline it does
// not start a second build at all.
const (
	coreDeadline  = 40 * time.Minute
	buildDeadline = 55 * time.Minute
)

// reusedInCI returns the stages that the second build of a check reuses: the
// images, the HIP module, of which it compiles a sample, and late in a run the core and
// the Vulkan module.
// If no time is left it returns ci.ErrNotDone: the next run finds the first build in
// its cache and has the time.
func (s *Session) reusedInCI() ([]string, error) {
	reuse := []string{"toolchain", "compile-hip"}
	switch took := time.Since(s.started); {
	case took > buildDeadline:
		return nil, fmt.Errorf("%w: the run has taken %s and a second build takes up to twenty minutes; the next run does it", ci.ErrNotDone, took.Round(time.Minute))
	case took > coreDeadline:
		reuse = append(reuse, "compile-core", "compile-vulkan")
	}
	return reuse, nil
}

// findEach returns the one file in dir for each pattern, joined as in PATH.
func findEach(dir string, patterns ...string) (string, error) {
	var found []string
	for _, p := range patterns {
		file, err := findOne(dir, p)
		if err != nil {
			return "", err
		}
		found = append(found, file)
	}
	return strings.Join(found, string(filepath.ListSeparator)), nil
}
