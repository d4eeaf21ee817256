package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/backendops"
	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// operationsPage is the document that BackendOps writes.
const operationsPage = "docs/operations.md"

// BackendOps computes every operation of llama.cpp's test-backend-ops with the shipped Vulkan module on
// Mesa's driver for CPUs, compares the results with the CPU's, and writes them to docs/operations.md. A
// run that was interrupted continues.
func BackendOps() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) (err error) {
		program, key, err := s.operations(ctx)
		if err != nil {
			return err
		}
		supported, unsupported, err := program.List(ctx)
		if err != nil {
			return err
		}
		state, err := backendops.OpenState(filepath.Join(s.Settings.Cache, "operations-"+key+".jsonl"))
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, state.Close()) }()
		if err := s.runOperations(ctx, program, supported, state); err != nil {
			return err
		}
		results := state.Results
		for _, c := range unsupported {
			results = append(results, backendops.Result{Case: c, Outcome: backendops.Unsupported, Reason: "by " + program.Device})
		}
		return s.writeOperations(filepath.Join(p.Root, filepath.FromSlash(operationsPage)), backendops.Merge(results))
	}))
}

// operations returns the program beside the modules of the hip bundle, and a key of both and of the
// driver.
func (s *Session) operations(ctx context.Context) (p backendops.Program, key string, err error) {
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return p, "", err
	}
	v, err := recipe.VariantByName("hip")
	if err != nil {
		return p, "", err
	}
	b, err := s.Recipe.Bundle(ctx, v)
	if err != nil {
		return p, "", err
	}
	raw, err := os.ReadFile(filepath.Join(b.Dir, bundle.ManifestName))
	if err != nil {
		return p, "", err
	}
	m, err := bundle.ParseManifest(raw)
	if err != nil {
		return p, "", err
	}
	path, err := s.Recipe.BackendOps(ctx)
	if err != nil {
		return p, "", err
	}
	sum, err := stage.FileDigest(path)
	if err != nil {
		return p, "", err
	}
	manifests, err := filepath.Glob(lavapipe)
	if err != nil {
		return p, "", err
	}
	if len(manifests) == 0 {
		return p, "", errors.New("lavapipe, Mesa's driver for CPUs, is not installed: apt-get install mesa-vulkan-drivers")
	}
	driver, err := os.ReadFile(manifests[0])
	if err != nil {
		return p, "", err
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", sum, m.Digest(), driver))
	return backendops.Program{
		Argv: []string{filepath.Join(b.Dir, filepath.FromSlash(m.Entry.Loader)), "--library-path", b.Dir, path},
		Dir:  b.Dir, Env: backendops.SoftwareEnv(manifests[0]), Device: "Vulkan0",
	}, hex.EncodeToString(digest[:8]), nil
}

// runOperations runs the cases that have no results yet, and prints how far it is every half a minute.
func (s *Session) runOperations(ctx context.Context, p backendops.Program, cases []backendops.Case, state *backendops.State) error {
	units := state.Left(cases)
	left := 0
	for _, u := range units {
		left += max(len(u.Cases), 1)
	}
	before, start, printed := len(state.Results), time.Now(), time.Now()
	if err := s.printf("operations: %d cases have results, %d units are left", before, len(units)); err != nil {
		return err
	}
	return p.RunUnits(ctx, s.Settings.Jobs, units, func(r backendops.Result) error {
		if err := state.Add(r); err != nil {
			return err
		}
		if r.Outcome == backendops.Different || r.Outcome == backendops.Crashed {
			if err := s.printf("operations: %s %s: %s", r.Case, r.Outcome, r.Reason); err != nil {
				return err
			}
		}
		if time.Since(printed) < 30*time.Second {
			return nil
		}
		printed = time.Now()
		took, n := time.Since(start), len(state.Results)-before
		rest := time.Duration(float64(took) / float64(n) * float64(max(left-n, 0)))
		return s.printf("operations: %d of about %d, %s, about %s left", n, left, took.Round(time.Second), rest.Round(time.Second))
	}, state.Complete)
}

// writeOperations writes the page. It is an error if an operation differs or crashed.
func (s *Session) writeOperations(file string, results []backendops.Result) error {
	different := backendops.Count(results, backendops.Different) + backendops.Count(results, backendops.Crashed)
	equal, unsupported := backendops.Count(results, backendops.Equal), backendops.Count(results, backendops.Unsupported)
	var b strings.Builder
	fmt.Fprintf(&b, `# Operations of the Vulkan module

Written by `+"`mage backendOps`"+`, which runs llama.cpp's own test-backend-ops (%s) beside the files of
the hip bundle, on Mesa's driver that computes on the CPU (lavapipe, without half floats and
cooperative matrices). Each case computes one operation, or a few that the backend may fuse, with the
shipped Vulkan module and with the CPU's reference, and compares the results within llama.cpp's own
tolerance. %d cases are equal, %d differ, %d are not supported by the module on this driver or by the
CPU: llama.cpp computes these with the CPU.

The end-to-end tests run a part: for each operation, types and kind of kernel the smallest case.

`, s.Recipe.Lock.Tag, equal, different, unsupported)
	if err := backendops.WriteTable(&b, results); err != nil {
		return err
	}
	if err := regfile.Replace(file, []byte(b.String()), 0o644); err != nil {
		return err
	}
	if err := s.printf("operations: %d equal, %d different, %d unsupported: %s", equal, different, unsupported, file); err != nil {
		return err
	}
	if different > 0 {
		return fmt.Errorf("%d operations differ from the CPU's: see %s", different, operationsPage)
	}
	return nil
}
