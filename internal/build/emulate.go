package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/backendops"
	"forge.lthn.ai/core/go-rocm/internal/ci"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/testing/hsa"
)

// Tests on the emulated card have one of these words in their names. With emulateAll in emulateVariable they run
// everything; without it they run the part for which CI has time.
const (
	emulateTests    = "RDNA3|Emulated"
	emulateVariable = "GOROCM_EMULATE"
	emulateAll      = "all"
)

// emulatePartsVariable names the parts to run, separated by commas; empty: all. emulateLimitVariable is how long each part
// may take, such as 20m; empty: as long as it needs. What is left then is not run, and the next run continues.
const (
	emulatePartsVariable = "GOROCM_EMULATE_PARTS"
	emulateLimitVariable = "GOROCM_EMULATE_LIMIT"
	partTests            = "tests"
	partOperations       = "operations"
)

// emulatedCase is how long a case of test-backend-ops may take on the emulated card, and emulatedWork how much it may
// compute, which limits its memory as well: that of the card is the machine's.
const (
	emulatedCase = 10 * time.Minute
	emulatedWork = 1e9
)

// emulation is the hip bundle on the emulated card.
type emulation struct {
	*Session
	root     string
	bundle   string // the directory of the unpacked bundle
	manifest *bundle.Manifest
	library  string // the emulated card's
	rig      string // a copy of the bundle with that library
	key      string // of bundle and library
	parts    []string
	limit    time.Duration
}

// Emulate runs the GPU code of the hip bundle on the emulated card: every test, where those of a change run a part, and the
// operations of llama.cpp's test-backend-ops on a card of each target. Then it writes which kernels were executed, and what
// the operations gave. A run that was interrupted continues.
func Emulate() error {
	return withSession(withPrograms(testPrograms, func(ctx context.Context, s *Session, p ci.Project) (err error) {
		e := &emulation{Session: s, root: p.Root}
		if e.parts, e.limit, err = emulateSettings(os.Getenv(emulatePartsVariable), os.Getenv(emulateLimitVariable)); err != nil {
			return err
		}
		if err := s.prepare(ctx, buildPrograms); err != nil {
			return err
		}
		work, err := os.MkdirTemp(s.Settings.Cache, "emulate-")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
		if err := e.build(ctx, work); err != nil {
			return err
		}
		var failed []error
		if slices.Contains(e.parts, partTests) {
			failed = append(failed, e.runTests(ctx, work))
		}
		if slices.Contains(e.parts, partOperations) && ctx.Err() == nil {
			failed = append(failed, e.computeOperations(ctx))
		}
		return errors.Join(append(failed, e.writeCoverage())...)
	}))
}

// emulateSettings reads the parts to run and the limit of each.
func emulateSettings(parts, limit string) (list []string, d time.Duration, err error) {
	all := []string{partTests, partOperations}
	list = strings.FieldsFunc(parts, func(r rune) bool { return r == ',' || r == ' ' })
	for _, part := range list {
		if !slices.Contains(all, part) {
			return nil, 0, fmt.Errorf("%s: there is no part %q; the parts are %s", emulatePartsVariable, part, strings.Join(all, ", "))
		}
	}
	if len(list) == 0 {
		list = all
	}
	if limit == "" {
		return list, 0, nil
	}
	if d, err = time.ParseDuration(limit); err != nil || d <= 0 {
		return nil, 0, fmt.Errorf("%s: %q is no time such as 20m", emulateLimitVariable, limit)
	}
	return list, d, nil
}

// until returns the end of a part that begins now; zero: it has none.
func (e *emulation) until() time.Time {
	if e.limit == 0 {
		return time.Time{}
	}
	return time.Now().Add(e.limit)
}

// build makes the bundle, the emulated card's library and the copy of the bundle with it.
func (e *emulation) build(ctx context.Context, work string) (err error) {
	if e.bundle, e.manifest, err = e.bundleOf(ctx, "hip"); err != nil {
		return err
	}
	if e.library, err = hsa.Build(ctx, work); err != nil {
		return err
	}
	sum, err := stage.FileDigest(e.library)
	if err != nil {
		return err
	}
	e.key = shortKey(sum, e.manifest.Digest())
	e.rig = filepath.Join(work, "bundle")
	return hsa.Replace(e.bundle, e.library, e.rig)
}

// shortKey returns a digest of texts.
func shortKey(parts ...string) string {
	digest := sha256.Sum256([]byte(strings.Join(parts, " ")))
	return hex.EncodeToString(digest[:8])
}

// coverage is the file with the kernels that were executed.
func (e *emulation) coverage() string {
	return filepath.Join(e.Settings.Cache, "emulated-"+e.key+".kernels")
}

// runTests runs the end-to-end tests on the emulated card that have not passed yet.
func (e *emulation) runTests(ctx context.Context, work string) error {
	source, packs, err := e.subjects(ctx, "cpu", "hip")
	if err != nil {
		return err
	}
	operations, err := e.Recipe.BackendOps(ctx)
	if err != nil {
		return err
	}
	dir, tests := filepath.Join(e.root, "testing", "e2e"), filepath.Join(work, "e2e.test")
	if err := runGo(ctx, dir, nil, "test", "-c", "-tags=e2e", "-trimpath", "-o", tests, "."); err != nil {
		return err
	}
	sum, err := stage.FileDigest(tests)
	if err != nil {
		return err
	}
	run := emulatedTests{
		program: tests, dir: dir, passed: filepath.Join(e.Settings.Cache, "emulated-"+shortKey(sum, e.key)+".passed"), out: os.Stdout, errors: os.Stderr,
		env: []string{
			emulateVariable + "=" + emulateAll, ci.EveryCase, ci.EnvBundle + "=" + packs[0], ci.EnvHIPBundle + "=" + packs[1], ci.EnvSource + "=" + source,
			ci.EnvBackendOps + "=" + operations,
			hsa.EnvCoverage + "=" + e.coverage(),
		},
	}
	if until := e.until(); !until.IsZero() {
		limited, cancel := context.WithDeadline(ctx, until)
		defer cancel()
		if err := run.run(limited); ctx.Err() != nil || !errors.Is(limited.Err(), context.DeadlineExceeded) {
			return err
		}
		return e.printf("emulate: the time of the tests is over; the next run continues")
	}
	return run.run(ctx)
}

// emulatedOperationsPage is the document with the operations.
const emulatedOperationsPage = "docs/emulated-operations.md"

// computeOperations computes the operations of the HIP module on a card of each target, and writes their page.
func (e *emulation) computeOperations(ctx context.Context) error {
	program, err := e.Recipe.BackendOps(ctx)
	if err != nil {
		return err
	}
	sum, err := stage.FileDigest(program)
	if err != nil {
		return err
	}
	var reports []operationsReport
	for _, target := range e.manifest.Targets {
		if err := e.printf("emulate: operations on %s", target); err != nil {
			return err
		}
		report, err := e.compute(ctx, operationsRun{
			Program: e.program(program, target.String()), until: e.until(), most: emulatedWork,
			state: filepath.Join(e.Settings.Cache, "emulated-operations-"+shortKey(sum, e.key, target.String())+".jsonl"),
		})
		if err != nil {
			return err
		}
		report.name = target.String()
		reports = append(reports, report)
	}
	return e.writeOperations(e.root, emulatedOperationsPage, emulatedOperations(e.Recipe.Lock.Tag, reports))
}

// program returns test-backend-ops on the emulated card of a target.
func (e *emulation) program(path, target string) backendops.Program {
	return backendops.Program{
		Argv: []string{filepath.Join(e.rig, filepath.FromSlash(e.manifest.Entry.Loader)), "--library-path", e.rig, path}, Dir: e.rig,
		Env:    backendops.EmulatedEnv(hsa.EnvCards+"="+target, hsa.EnvCoverage+"="+e.coverage()),
		Device: "ROCm0", CaseLimit: emulatedCase, Slow: true,
	}
}

// emulatedOperations returns the page of the operations of the HIP module.
func emulatedOperations(tag string, reports []operationsReport) operationsDocument {
	return operationsDocument{intro: `# Operations of the HIP module

Written by ` + "`mage emulate`" + `, which runs llama.cpp's own test-backend-ops (` + tag + `) beside the files of
the hip bundle, on the [emulated card](emulated-card.md) of each target. Each case computes one operation,
or a few that the backend may fuse, with the shipped HIP module and with the CPU's reference, and compares
the results within llama.cpp's own tolerance. The smallest case of each operation, its types and its number of
vectors comes first; cases the product of whose sizes is more than 10⁹ are too large for this card, and count as
not run.
`, reports: reports}
}
