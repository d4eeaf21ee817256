package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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

// operationsVariable names the operations to run, separated by commas; empty: all. operationParamsVariable is
// a regular expression for the parameters of their cases.
const (
	operationsVariable      = "GOROCM_OPERATIONS"
	operationParamsVariable = "GOROCM_OPERATION_PARAMS"
)

// BackendOps computes every operation of llama.cpp's test-backend-ops with the shipped Vulkan module on
// Mesa's driver for CPUs, compares the results with the CPU's, and writes them to docs/operations.md. A
// run that was interrupted continues. GOROCM_OPERATIONS and GOROCM_OPERATION_PARAMS select cases; the page
// has the results of all runs.
func BackendOps() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) error {
		program, err := s.operations(ctx)
		if err != nil {
			return err
		}
		run := operationsRun{Program: program.Program, state: filepath.Join(s.Settings.Cache, "operations-"+program.key+".jsonl")}
		report, err := s.compute(ctx, run)
		if err != nil {
			return err
		}
		return s.writeOperations(p.Root, operationsPage, vulkanOperations(s.Recipe.Lock.Tag, program.mesa, report))
	}))
}

// operationsRun is a device whose operations are computed.
type operationsRun struct {
	backendops.Program
	state string    // the file with the results
	until time.Time // no case begins after it, and the one that runs is stopped; zero: no limit
	most  float64   // cases with more work are not run; zero: no limit
}

// compute runs the cases of a device that the environment selects, those that have no result yet, and returns the
// results of all runs.
func (s *Session) compute(ctx context.Context, run operationsRun) (report operationsReport, err error) {
	supported, unsupported, err := run.List(ctx)
	if err != nil {
		return report, err
	}
	chosen, err := selectOperations(os.Getenv(operationsVariable), os.Getenv(operationParamsVariable), slices.Concat(supported, unsupported))
	if err != nil {
		return report, err
	}
	state, err := backendops.OpenState(run.state)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	limited := ctx
	if !run.until.IsZero() {
		var cancel context.CancelFunc
		limited, cancel = context.WithDeadline(ctx, run.until)
		defer cancel()
	}
	units := chosen.units(run.order(state, supported))
	listed(units, supported)
	err = s.runOperations(limited, run.Program, units, state)
	if err != nil && (ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded)) {
		return report, err
	}
	return operationsReport{device: run.Device, results: state.Results, unsupported: unsupported, left: state.Left(supported)}, nil
}

// order returns the units without results. On a slow device, the smallest case of each kind comes first, then come the fused
// operations, then the others.
func (run operationsRun) order(state *backendops.State, supported []backendops.Case) []backendops.Unit {
	if !run.Slow {
		return state.Left(supported)
	}
	first, rest := backendops.Variety(slices.DeleteFunc(slices.Clone(supported), func(c backendops.Case) bool {
		return run.most > 0 && backendops.Work(c) > run.most
	}))
	return append(state.Left(first), slices.DeleteFunc(state.Left(rest), func(u backendops.Unit) bool { return u.Operation != "" })...)
}

// listed sorts the cases of each unit as the program lists and runs them: after a crash, the case after the last one that
// has a result is the suspect.
func listed(units []backendops.Unit, cases []backendops.Case) {
	at := map[backendops.Case]int{}
	for n, c := range cases {
		at[c] = n
	}
	for _, u := range units {
		slices.SortFunc(u.Cases, func(a, b backendops.Case) int { return at[a] - at[b] })
	}
}

// selection is a set of operations, empty: all, and of their parameters, nil: all.
type selection struct {
	operations map[string]bool
	params     *regexp.Regexp
}

// selectOperations reads names of operations that commas separate, and a regular expression for the parameters
// of their cases.
func selectOperations(list, params string, cases []backendops.Case) (sel selection, err error) {
	known := map[string]bool{}
	for _, c := range cases {
		known[c.Operation] = true
	}
	for _, name := range backendops.FusedOperations {
		known[name] = true
	}
	sel.operations = map[string]bool{}
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == ' ' }) {
		if !known[name] {
			return sel, fmt.Errorf("%s: test-backend-ops has no operation %q; it has %s", operationsVariable, name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		sel.operations[name] = true
	}
	if params == "" {
		return sel, nil
	}
	if len(sel.operations) == 0 {
		return sel, fmt.Errorf("%s is set without %s; name the operations whose parameters it matches", operationParamsVariable, operationsVariable)
	}
	if sel.params, err = regexp.Compile(params); err != nil {
		return sel, fmt.Errorf("%s: %w", operationParamsVariable, err)
	}
	for name := range sel.operations {
		matches := func(c backendops.Case) bool { return c.Operation == name && sel.params.MatchString(c.Params) }
		if !slices.Contains(backendops.FusedOperations, name) && !slices.ContainsFunc(cases, matches) {
			return sel, fmt.Errorf("%s: no case of %s has parameters that match %q", operationParamsVariable, name, params)
		}
	}
	return sel, nil
}

// units returns units of the selected cases, as few as possible: each is a process that compiles shaders.
func (sel selection) units(all []backendops.Unit) []backendops.Unit {
	if len(sel.operations) == 0 {
		return all
	}
	var cases []backendops.Case
	var fused []backendops.Unit
	for _, u := range all {
		for _, c := range u.Cases {
			if sel.operations[c.Operation] && (sel.params == nil || sel.params.MatchString(c.Params)) {
				cases = append(cases, c)
			}
		}
		if sel.operations[u.Operation] {
			if sel.params != nil {
				u.Params = sel.params.String()
			}
			fused = append(fused, u)
		}
	}
	return append(backendops.Units(cases), fused...)
}

// bundleOf returns the unpacked bundle of a variant, with its manifest.
func (s *Session) bundleOf(ctx context.Context, variant string) (dir string, m *bundle.Manifest, err error) {
	v, err := recipe.VariantByName(variant)
	if err != nil {
		return "", nil, err
	}
	b, err := s.Recipe.Bundle(ctx, v)
	if err != nil {
		return "", nil, err
	}
	raw, err := os.ReadFile(filepath.Join(b.Dir, bundle.ManifestName))
	if err != nil {
		return "", nil, err
	}
	m, err = bundle.ParseManifest(raw)
	return b.Dir, m, err
}

// operationsProgram is test-backend-ops beside the modules of the hip bundle.
type operationsProgram struct {
	backendops.Program
	key  string // of program, modules and driver
	mesa string // the driver's version
}

// operations makes test-backend-ops, the hip bundle and the driver.
func (s *Session) operations(ctx context.Context) (p operationsProgram, err error) {
	if err := s.prepare(ctx, buildPrograms); err != nil {
		return p, err
	}
	dir, m, err := s.bundleOf(ctx, "hip")
	if err != nil {
		return p, err
	}
	path, err := s.Recipe.BackendOps(ctx)
	if err != nil {
		return p, err
	}
	sum, err := stage.FileDigest(path)
	if err != nil {
		return p, err
	}
	mesa, err := s.mesa(ctx)
	if err != nil {
		return p, err
	}
	version, err := os.ReadFile(filepath.Join(mesa, mesaVersion))
	if err != nil {
		return p, err
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "%s %s %s", sum, m.Digest(), version))
	p.key, p.mesa = hex.EncodeToString(digest[:8]), strings.TrimSpace(string(version))
	p.Program = backendops.Program{
		// The libraries of the driver are those of its release where the bundle has none.
		Argv: []string{filepath.Join(dir, filepath.FromSlash(m.Entry.Loader)), "--library-path", dir + ":" + mesa, path},
		Dir:  dir, Env: backendops.SoftwareEnv(filepath.Join(mesa, mesaManifest)), Device: "Vulkan0",
	}
	return p, nil
}

// runOperations runs units that have no results yet, and prints how far it is every half a minute.
func (s *Session) runOperations(ctx context.Context, p backendops.Program, units []backendops.Unit, state *backendops.State) error {
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
		if r.Outcome == backendops.Different || r.Outcome == backendops.Crashed || r.Outcome == backendops.TooSlow {
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

// operationsReport is the results of a device.
type operationsReport struct {
	name, device string // the heading, if there are several, and the name that llama.cpp gives it
	results      []backendops.Result
	unsupported  []backendops.Case // by the device
	left         []backendops.Unit // without results
}

// operationsDocument is a page with the results of one device or of several.
type operationsDocument struct {
	intro   string
	reports []operationsReport
}

// vulkanOperations returns the page of the Vulkan module.
func vulkanOperations(tag, mesa string, report operationsReport) operationsDocument {
	return operationsDocument{intro: `# Operations of the Vulkan module

Written by ` + "`mage backendOps`" + `, which runs llama.cpp's own test-backend-ops (` + tag + `) beside the files of
the hip bundle, on Mesa's driver that computes on the CPU (lavapipe ` + mesa + `, without half floats and
cooperative matrices). Each case computes one operation, or a few that the backend may fuse, with the
shipped Vulkan module and with the CPU's reference, and compares the results within llama.cpp's own
tolerance.
`, reports: []operationsReport{report}}
}

// rows returns the results, the cases that were not run and those that the device does not support, and the
// operations that were not run at all, of which it returns no results.
func (r operationsReport) rows() (results []backendops.Result, notRun []string) {
	ran, skipped := map[string]bool{}, map[string]bool{}
	for _, one := range r.results {
		ran[one.Operation] = true
	}
	results = slices.Clone(r.results)
	leave := func(c backendops.Case) {
		if ran[c.Operation] {
			results = append(results, backendops.Result{Case: c, Outcome: backendops.NotRun})
			return
		}
		skipped[c.Operation] = true
	}
	for _, u := range r.left {
		for _, c := range u.Cases {
			leave(c)
		}
		if u.Operation != "" {
			leave(backendops.Case{Operation: u.Operation})
		}
	}
	for _, c := range r.unsupported {
		if !skipped[c.Operation] {
			results = append(results, backendops.Result{Case: c, Outcome: backendops.Unsupported, Reason: "by " + r.device})
		}
	}
	return backendops.Merge(results), slices.Sorted(maps.Keys(skipped))
}

// write writes the page and returns the number of cases that differ or crashed.
func (d operationsDocument) write(w io.Writer) (different int, err error) {
	var b strings.Builder
	b.WriteString(d.intro)
	for _, r := range d.reports {
		results, notRun := r.rows()
		wrong := backendops.Count(results, backendops.Different) + backendops.Count(results, backendops.Crashed)
		different += wrong
		if r.name != "" {
			fmt.Fprintf(&b, "\n## %s\n", r.name)
		}
		fmt.Fprintf(&b, `
%d cases are equal; %d differ or crash. %d are not supported by the module on this driver or by the CPU:
llama.cpp computes those with the CPU.

`, backendops.Count(results, backendops.Equal), wrong, backendops.Count(results, backendops.Unsupported))
		if len(notRun) > 0 {
			fmt.Fprintf(&b, "These operations were not run: %s.\n\n", strings.Join(notRun, ", "))
		}
		if err := backendops.WriteTable(&b, results); err != nil {
			return different, err
		}
	}
	_, err = io.WriteString(w, b.String())
	return different, err
}

// writeOperations writes a page of the documentation. It is an error if an operation differs or crashed.
func (s *Session) writeOperations(root, page string, d operationsDocument) error {
	var b bytes.Buffer
	different, err := d.write(&b)
	if err != nil {
		return err
	}
	if err := regfile.Replace(filepath.Join(root, filepath.FromSlash(page)), b.Bytes(), 0o644); err != nil {
		return err
	}
	n := 0
	for _, r := range d.reports {
		n += len(r.results)
	}
	if err := s.printf("operations: %d cases have results, %d of them differ: %s", n, different, page); err != nil {
		return err
	}
	if different > 0 {
		return fmt.Errorf("%d cases differ from the CPU's: see %s", different, page)
	}
	return nil
}
