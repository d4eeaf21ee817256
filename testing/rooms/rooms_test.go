package rooms

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

// list asks the go command for all packages of the module and all that they
// reach on a platform.
func list(t *testing.T, goos, goarch string) []Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Standard,Imports", Module+"/...")
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
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

// watch looks at every source file, so that a cached result of this test dies
// with the first change: the test cache does not see what the go command that
// is started here reads.
func watch(t *testing.T) {
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
	watch(t)
	for _, platform := range [][2]string{{"linux", "amd64"}, {"linux", "arm64"}, {"darwin", "arm64"}} {
		t.Run(platform[0]+"/"+platform[1], func(t *testing.T) {
			packages := list(t, platform[0], platform[1])
			rooms := map[string]bool{}
			for _, p := range packages {
				for _, room := range Rooms() {
					rooms[room.Folder] = rooms[room.Folder] || within(p.ImportPath, Module+"/"+room.Folder)
				}
			}
			for _, room := range Rooms() {
				if !rooms[room.Folder] {
					t.Errorf("room %s has no package: was it moved?", room.Folder)
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
	ours := func(folder string, imports ...string) Package {
		return Package{ImportPath: Module + "/" + folder, Imports: imports}
	}
	tests := map[string]struct {
		packages []Package
		want     []string
	}{
		"clean": {
			packages: []Package{std, ours("pkg/gfx", "fmt", Module+"/pkg/gfx/internal/x"), ours("docker/engine", "github.com/docker/docker/client")},
		},
		"a stdlib room that wants more": {
			packages: []Package{std, ours("pkg/gguf", "fmt", "example.test/x")},
			want:     []string{Module + "/pkg/gguf -> example.test/x: pkg/gguf may not import it"},
		},
		"a neighbour that is not allowed": {
			packages: []Package{ours("runtime/supervise", Module+"/pkg/gguf"), ours("pkg/gguf")},
			want:     []string{Module + "/runtime/supervise -> " + Module + "/pkg/gguf: runtime/supervise may not import it"},
		},
		"the engine through two others": {
			packages: []Package{
				ours("cmd/go-rocm", "github.com/spf13/cobra"),
				{ImportPath: "github.com/spf13/cobra", Imports: []string{"example.test/b"}},
				{ImportPath: "example.test/b", Imports: []string{"github.com/docker/docker/client"}},
			},
			want: []string{Module + "/cmd/go-rocm -> github.com/spf13/cobra -> example.test/b -> github.com/docker/docker/client: the run side never reaches it"},
		},
		"a room's name is not a prefix of another's": {
			packages: []Package{ours("pkg/gfxtools", "example.test/x")},
			want:     []string{Module + "/pkg/gfxtools: it is in no room; say in Rooms what it may import"},
		},
		"a package of the run side without a room": {
			packages: []Package{ours("runtime/new"), ours("cmd/other"), ours("internal/new"), ours("testing/new"), ours("docker/new")},
			want: []string{
				Module + "/runtime/new: it is in no room; say in Rooms what it may import",
				Module + "/cmd/other: it is in no room; say in Rooms what it may import",
			},
		},
		"the build side's internals through a room": {
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

// TestArchitectureTellsOfAll: the tables of the description have every folder.
func TestArchitectureTellsOfAll(t *testing.T) {
	watch(t)
	text, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, p := range list(t, "linux", "amd64") {
		folder, ours := strings.CutPrefix(p.ImportPath, Module+"/")
		top, rest, _ := strings.Cut(folder, "/")
		if !ours || !onRunSide(folder) && top != "docker" && top != "internal" {
			continue
		}
		if name, _, below := strings.Cut(rest, "/"); below {
			folder = top + "/" + name
		}
		told++
		if !strings.Contains(string(text), "`"+folder+"`") {
			t.Errorf("docs/architecture.md does not say what %s is for", folder)
		}
	}
	if told < len(Rooms()) {
		t.Errorf("%d folders looked at, there are %d rooms", told, len(Rooms()))
	}
}
