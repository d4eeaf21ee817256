package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// list returns all packages of the module, and all their dependencies, on a
// platform.
func list(t *testing.T, goos, goarch string) []Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports", Module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOWORK=off")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var packages []Package
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p Package
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// trackSources reads the metadata of every source file, so that the test cache
// notices a change: it does not see the files that the go command reads.
func trackSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		_, err = os.Stat(path)
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestImportDirections(t *testing.T) {
	trackSources(t)
	for _, platform := range [][2]string{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}} {
		t.Run(platform[0]+"/"+platform[1], func(t *testing.T) {
			packages := list(t, platform[0], platform[1])
			used := map[string]bool{}
			for _, p := range packages {
				dir, ours := directory(p.ImportPath)
				for _, rule := range Rules() {
					used[rule.Dir] = used[rule.Dir] || ours && matches(dir, rule.Dir)
				}
			}
			for _, rule := range Rules() {
				if !used[rule.Dir] {
					t.Errorf("the rule for %s matches no package: was it moved?", rule.Dir)
				}
			}
			for _, v := range Check(packages) {
				t.Error(v)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	std := Package{ImportPath: "fmt", Standard: true}
	ours := func(dir string, imports ...string) Package {
		return Package{ImportPath: importPath(dir), Imports: imports}
	}
	tests := map[string]struct {
		packages []Package
		want     []string
	}{
		"clean": {
			packages: []Package{std, ours("pkg/gfx", "fmt", Module+"/pkg/gfx/internal/x"), ours("docker/engine", "github.com/docker/docker/client"), ours("cmd/go-rocm", Module)},
		},
		"a package of the standard library alone imports another module": {
			packages: []Package{std, ours("pkg/gguf", "fmt", "example.test/x")},
			want:     []string{Module + "/pkg/gguf -> example.test/x: pkg/gguf may not import it"},
		},
		"a package imports a neighbour that is not allowed": {
			packages: []Package{ours("runtime/supervise", Module+"/pkg/gguf"), ours("pkg/gguf")},
			want:     []string{Module + "/runtime/supervise -> " + Module + "/pkg/gguf: runtime/supervise may not import it"},
		},
		"pkg imports a package above it": {
			packages: []Package{ours("pkg/llamaapi", Module, Module+"/runtime/gpu"), ours("."), ours("runtime/gpu")},
			want: []string{
				Module + "/pkg/llamaapi -> " + Module + ": pkg/llamaapi may not import it",
				Module + "/pkg/llamaapi -> " + Module + "/runtime/gpu: pkg/llamaapi may not import it",
			},
		},
		"the root package may not import every directory below it": {
			packages: []Package{ours(".", Module+"/cmd/go-rocm"), ours("cmd/go-rocm")},
			want:     []string{Module + " -> " + Module + "/cmd/go-rocm: . may not import it"},
		},
		"the command reaches the engine through two others": {
			packages: []Package{
				ours("cmd/go-rocm", "github.com/spf13/cobra"),
				{ImportPath: "github.com/spf13/cobra", Imports: []string{"example.test/b"}},
				{ImportPath: "example.test/b", Imports: []string{"github.com/docker/docker/client"}},
			},
			want: []string{Module + "/cmd/go-rocm -> github.com/spf13/cobra -> example.test/b -> github.com/docker/docker/client: the run side never reaches it"},
		},
		"a rule does not apply to a directory whose name it begins": {
			packages: []Package{ours("pkg/gfxtools", "example.test/x")},
			want:     []string{Module + "/pkg/gfxtools: it has no rule: add one to Rules"},
		},
		"packages of the run side need a rule": {
			packages: []Package{ours("runtime/new"), ours("cmd/other"), ours("internal/new"), ours("testing/new"), ours("docker/new")},
			want: []string{
				Module + "/runtime/new: it has no rule: add one to Rules",
				Module + "/cmd/other: it has no rule: add one to Rules",
			},
		},
		"the run side reaches internal packages of the build side": {
			packages: []Package{
				ours("embed", Module+"/pkg/bundle"),
				ours("pkg/bundle", Module+"/internal/ctxio"),
				ours("internal/ctxio", Module+"/internal/build"),
			},
			want: []string{
				Module + "/embed -> " + Module + "/pkg/bundle -> " + Module + "/internal/ctxio -> " + Module + "/internal/build: the run side never reaches it",
				Module + "/pkg/bundle -> " + Module + "/internal/ctxio -> " + Module + "/internal/build: the run side never reaches it",
				Module + "/internal/ctxio -> " + Module + "/internal/build: internal/ctxio may not import it",
			},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, v := range Check(tt.packages) {
				got = append(got, v.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("violations (-want +got):\n%s", diff)
			}
		})
	}
}

// TestArchitectureListsEveryPackage checks that the tables of the description
// have a row for each directory of the run side, of docker/ and of internal/.
func TestArchitectureListsEveryPackage(t *testing.T) {
	trackSources(t)
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, p := range list(t, "linux", "amd64") {
		dir, ours := directory(p.ImportPath)
		top, rest, _ := strings.Cut(dir, "/")
		if !ours || dir == "." || !runSide(dir) && top != "docker" && top != "internal" {
			continue
		}
		if name, _, below := strings.Cut(rest, "/"); below {
			dir = top + "/" + name
		}
		seen++
		if !strings.Contains(string(text), "`"+dir+"`") {
			t.Errorf("docs/architecture.md does not say what %s is for", dir)
		}
	}
	if seen < len(Rules())-1 {
		t.Errorf("%d directories were checked, but there are %d rules", seen, len(Rules()))
	}
}
