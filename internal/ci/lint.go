package ci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// buildTags are all build tags of the project's files.
const buildTags = "mage,e2e,install"

// LintSteps returns the steps that run no test: formatting, modules, vet for each
// platform, golangci-lint.
func (p Project) LintSteps() []Step {
	return []Step{
		{Name: "gofmt", Limit: time.Minute, Run: uncounted(p.gofmt)},
		{Name: "modules", Limit: 10 * time.Minute, Run: uncounted(p.tidy)},
		{Name: "vet linux/amd64", Limit: 15 * time.Minute, Run: uncounted(p.vet("linux", "amd64"))},
		{Name: "vet darwin/arm64", Limit: 15 * time.Minute, Run: uncounted(p.vet("darwin", "arm64"))},
		{Name: "vet windows/amd64", Limit: 15 * time.Minute, Run: uncounted(p.vet("windows", "amd64", "./pkg/..."))},
		{Name: "vet linux/386", Limit: 15 * time.Minute, Run: uncounted(p.vet("linux", "386", "./..."))},
		{Name: "golangci-lint", Limit: 25 * time.Minute, Run: uncounted(p.golangci)},
	}
}

// uncounted returns the Run function of a step without Go tests.
func uncounted(f func(context.Context, io.Writer) error) func(context.Context, io.Writer) (Count, error) {
	return func(ctx context.Context, out io.Writer) (Count, error) { return Count{}, f(ctx, out) }
}

// gofmt is a step of its own, besides golangci-lint, because it also checks files that
// no build tag selects and finishes in a second.
func (p Project) gofmt(ctx context.Context, out io.Writer) error {
	files, err := p.command(out, nil, "gofmt", "-l", "-s", ".").output(ctx)
	if err != nil {
		return err
	}
	if files != "" {
		return fmt.Errorf("run gofmt -s -w on: %s", strings.Join(strings.Fields(files), " "))
	}
	return nil
}

// tidy compares go.mod and go.sum with the imports of the sources. With -e the go
// command continues if it cannot download a module that only the tests of a dependency
// import (nfpm has such modules). The difference is still correct for this project, so
// only the difference is an error.
func (p Project) tidy(ctx context.Context, out io.Writer) error {
	dirs, err := p.modules()
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		var log tail
		c := command{dir: dir, out: io.MultiWriter(out, &log), argv: []string{"go", "mod", "tidy", "-e", "-diff"}}
		diff, err := c.output(ctx)
		switch {
		case diff != "":
			fmt.Fprintln(out, diff)
			failed = append(failed, fmt.Errorf("go.mod or go.sum in %s differ from the imports; run go mod tidy -e there", dir))
		case err != nil && !strings.Contains(string(log.text), " tested by\n"):
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// vet returns a check for a platform: of all modules, or of some packages of the main
// one.
func (p Project) vet(goos, goarch string, packages ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, out io.Writer) error {
		env := []string{"GOOS=" + goos, "GOARCH=" + goarch}
		if goos != "linux" || goarch != "amd64" {
			env = append(env, "CGO_ENABLED=0")
		}
		vet := []string{"go", "vet", "-tags", buildTags}
		if len(packages) == 0 {
			return p.inModules(ctx, out, env, append(vet, "./...")...)
		}
		return p.command(out, env, append(vet, packages...)...).run(ctx)
	}
}

func (p Project) golangci(ctx context.Context, out io.Writer) error {
	program, err := p.tool(ctx, out, golangciLint)
	if err != nil {
		return err
	}
	// Nested modules are outside of "./...".
	return p.inModules(ctx, out, nil, program, "run", "--allow-serial-runners", "./...")
}

// vulnerabilities checks for known vulnerabilities that the code can reach. It
// downloads the database at each run. If the database is unreachable, the step is
// reported as not done and does not fail the run.
func (p Project) vulnerabilities(ctx context.Context, out io.Writer) error {
	program, err := p.tool(ctx, out, govulncheck)
	if err != nil {
		return err
	}
	var log tail
	err = p.inModules(ctx, io.MultiWriter(out, &log), nil, program, "-tags", buildTags, "./...")
	return vulnerabilityError(err, string(log.text))
}

// vulnerabilityError explains the exit status of govulncheck: 3 means that it found
// vulnerabilities (go doc golang.org/x/vuln/cmd/govulncheck), 1 any other error, such
// as a failed download.
func vulnerabilityError(err error, log string) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 3:
		return errors.New("govulncheck found the vulnerabilities listed above; update the modules that it names")
	case err != nil && strings.Contains(log, "fetching vulnerabilities: "):
		return fmt.Errorf("%w: the vulnerability database is unreachable; set GOVULNDB to another one", ErrNotDone)
	}
	return err
}

// Write adds b to the output.
func (t *tail) Write(b []byte) (int, error) {
	t.add(string(b))
	return len(b), nil
}
