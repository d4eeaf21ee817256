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

// buildTags names every tag behind which the project keeps files.
const buildTags = "mage,e2e,install"

// LintSteps returns the checks that need no bundle and run no test: format,
// modules, vet for each platform, golangci-lint.
func (p Project) LintSteps() []Step {
	return []Step{
		{Name: "gofmt", Limit: time.Minute, Run: uncounted(p.gofmt)},
		{Name: "modules", Limit: 10 * time.Minute, Run: uncounted(p.tidy)},
		{Name: "vet linux/amd64", Limit: 15 * time.Minute, Run: uncounted(p.vet("linux", "amd64"))},
		{Name: "vet darwin/arm64", Limit: 15 * time.Minute, Run: uncounted(p.vet("darwin", "arm64"))},
		{Name: "vet windows/amd64", Limit: 15 * time.Minute, Run: uncounted(p.vet("windows", "amd64", "./pkg/..."))},
		{Name: "vet linux/386", Limit: 15 * time.Minute, Run: uncounted(p.vet("linux", "386"))},
		{Name: "golangci-lint", Limit: 25 * time.Minute, Run: uncounted(p.golangci)},
	}
}

// uncounted makes a step of a check that runs no Go tests.
func uncounted(f func(context.Context, io.Writer) error) func(context.Context, io.Writer) (Count, error) {
	return func(ctx context.Context, out io.Writer) (Count, error) { return Count{}, f(ctx, out) }
}

// gofmt stands apart from golangci-lint because it also sees files that no
// build tag selects and speaks in a second.
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

// tidy compares go.mod and go.sum with what the sources import. With -e the
// go command goes on where a module cannot be had that only the tests of a
// dependency import (nfpm has such ones); its difference is then still right
// for this project, and it alone is judged.
func (p Project) tidy(ctx context.Context, out io.Writer) error {
	dirs, err := p.modules()
	if err != nil {
		return err
	}
	var failed []error
	for _, dir := range dirs {
		var said tail
		c := command{dir: dir, out: io.MultiWriter(out, &said), argv: []string{"go", "mod", "tidy", "-e", "-diff"}}
		diff, err := c.output(ctx)
		switch {
		case diff != "":
			fmt.Fprintln(out, diff)
			failed = append(failed, fmt.Errorf("go.mod or go.sum in %s is not what the sources ask for; run go mod tidy -e there", dir))
		case err != nil && !strings.Contains(said.text, " tested by\n"):
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}

// vet checks what is meant for a platform: on linux/amd64 everything, nested
// modules and tagged files included, elsewhere the main module, or the packages
// of it that are named.
func (p Project) vet(goos, goarch string, packages ...string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, out io.Writer) error {
		env := []string{"GOOS=" + goos, "GOARCH=" + goarch}
		if len(packages) == 0 {
			packages = []string{"./..."}
		}
		vet := append([]string{"go", "vet", "-tags", buildTags}, packages...)
		if goos == "linux" && goarch == "amd64" {
			return p.inModules(ctx, out, env, vet...)
		}
		return p.command(out, append(env, "CGO_ENABLED=0"), vet...).run(ctx)
	}
}

func (p Project) golangci(ctx context.Context, out io.Writer) error {
	program, err := p.tool(ctx, out, golangciLint)
	if err != nil {
		return err
	}
	// Nested modules have their own go.mod and are outside of "./...".
	return p.inModules(ctx, out, nil, program, "run", "--allow-serial-runners", "./...")
}

// vulnerabilities reports known vulnerabilities that the code can reach. Its
// data comes over the network at each run; a machine that does not reach it
// proves nothing, which is said and does not fail the run.
func (p Project) vulnerabilities(ctx context.Context, out io.Writer) error {
	program, err := p.tool(ctx, out, govulncheck)
	if err != nil {
		return err
	}
	var said tail
	err = p.command(io.MultiWriter(out, &said), nil, program, "./...").run(ctx)
	return judgeVulnerabilities(err, said.text)
}

// judgeVulnerabilities reads govulncheck's end: exit status 3 is a finding
// (go doc golang.org/x/vuln/cmd/govulncheck); a failed download ends with 1.
func judgeVulnerabilities(err error, said string) error {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 3:
		return errors.New("govulncheck found vulnerabilities, listed above; update the modules that it names")
	case err != nil && strings.Contains(said, "fetching vulnerabilities: "):
		return fmt.Errorf("%w: the vulnerability database cannot be reached from here (GOVULNDB names another one)", ErrNotDone)
	}
	return err
}

// Write keeps the end of what is written.
func (t *tail) Write(b []byte) (int, error) {
	t.add(string(b))
	return len(b), nil
}
