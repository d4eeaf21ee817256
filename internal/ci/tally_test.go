package ci

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// writeModule writes a Go module for the real go command.
func writeModule(t *testing.T, files map[string]string) Project {
	t.Helper()
	root := t.TempDir()
	files["go.mod"] = "module example.test/m\n\ngo 1.26\n"
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	p, err := Project{Root: root, Cache: t.TempDir()}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const header = "package a\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Exit\n\n"

func TestGoTestCountsTestsByOutcome(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles programs; `mage test` runs this test")
	}
	tests := map[string]struct {
		body  string
		want  Count
		names []string
		says  []string
	}{
		"passes": {
			body: "func TestA(t *testing.T) {}\nfunc TestB(t *testing.T) {}\nfunc ExampleC() {\n// Output:\n}\n",
			want: Count{Passed: 3},
			says: []string{"ok       example.test/m/a"},
		},
		"a test with subtests counts as its subtests": {
			body: "func TestA(t *testing.T) {\nfor _, n := range []string{\"x\", \"y\"} { t.Run(n, func(t *testing.T) { t.Run(\"z\", func(*testing.T) {}) }) }\n}\n",
			want: Count{Passed: 2},
		},
		"a failing subtest is one failure": {
			body:  "func TestA(t *testing.T) {\nt.Run(\"x\", func(t *testing.T) { t.Error(\"boom\") })\nt.Run(\"y\", func(*testing.T) {})\n}\n",
			want:  Count{Passed: 1, Failed: 1},
			names: []string{"example.test/m/a TestA/x: a_test.go:11: boom"},
			says:  []string{"boom"},
		},
		"the slashes in the name of a subtest are no subtests": {
			body:  "func TestA(t *testing.T) {\nt.Run(\"x/y=1/z\", func(*testing.T) {})\nt.Run(\"w\", func(t *testing.T) { t.Error(\"boom\") })\n}\n",
			want:  Count{Passed: 1, Failed: 1},
			names: []string{"example.test/m/a TestA/w: a_test.go:12: boom"},
		},
		"a parent may fail beside its subtests": {
			body:  "func TestA(t *testing.T) {\nt.Run(\"x\", func(*testing.T) {})\nt.Error(\"parent\")\n}\n",
			want:  Count{Passed: 1, Failed: 1},
			names: []string{"example.test/m/a TestA: a_test.go:12: parent"},
			says:  []string{"parent"},
		},
		"skips are counted and reported": {
			body: "func TestA(t *testing.T) { t.Skip(\"for a reason\") }\n",
			want: Count{Skipped: 1},
			says: []string{"skipped example.test/m/a TestA", "for a reason"},
		},
		"a panic": {
			body:  "func TestA(t *testing.T) { panic(\"bang\") }\nfunc TestB(t *testing.T) {}\n",
			want:  Count{Failed: 1},
			names: []string{"example.test/m/a TestA"},
			says:  []string{"bang"},
		},
		"an exit in the middle": {
			body:  "func TestA(t *testing.T) { os.Exit(3) }\nfunc TestB(t *testing.T) {}\n",
			want:  Count{Failed: 1},
			names: []string{"example.test/m/a TestA"},
		},
		"does not compile": {
			body:  "func TestA(t *testing.T) { undefinedName() }\n",
			want:  Count{Failed: 1},
			names: []string{"example.test/m/a: a/a_test.go:10:28: undefined: undefinedName"},
			says:  []string{"undefined: undefinedName"},
		},
		"fails outside of any test": {
			body:  "func TestA(t *testing.T) {}\nfunc TestMain(m *testing.M) { m.Run(); println(\"lost\"); os.Exit(1) }\n",
			want:  Count{Passed: 1, Failed: 1},
			names: []string{"example.test/m/a"},
			says:  []string{"lost"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p := writeModule(t, map[string]string{"a/a_test.go": header + tt.body})
			var out strings.Builder
			got, err := p.goTest(t.Context(), &out, p.Root, nil, "-vet=off", "./...")
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("count (-want +got):\n%s\n%s", diff, &out)
			}
			if (err != nil) != (tt.want.Failed > 0) {
				t.Errorf("error %v with %v", err, got)
			}
			for _, n := range tt.names {
				if err == nil || !strings.Contains(err.Error(), n) {
					t.Errorf("error %v does not name %s", err, n)
				}
			}
			for _, s := range tt.says {
				if !strings.Contains(out.String(), s) {
					t.Errorf("output lacks %q:\n%s", s, &out)
				}
			}
		})
	}
}

func TestGoTestWithoutTestsFails(t *testing.T) {
	p := writeModule(t, map[string]string{"a/a.go": "package a\n"})
	if c, err := p.goTest(t.Context(), io.Discard, p.Root, nil, "./..."); err == nil || !strings.Contains(err.Error(), "ran no test") {
		t.Errorf("got %v, %v", c, err)
	}
}

func TestGoTestCancelledFails(t *testing.T) {
	p := writeModule(t, map[string]string{"a/a_test.go": header + "func TestA(t *testing.T) {}\n"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.goTest(ctx, io.Discard, p.Root, nil, "./..."); err == nil {
		t.Error("no error though the run was cancelled")
	}
}

func TestTallyReportsUnfinishedPackages(t *testing.T) {
	stream := `{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
plain words of the go command
`
	var out strings.Builder
	report, err := Tally(strings.NewReader(stream), &out)
	if err == nil || !strings.Contains(err.Error(), "before it reported p") {
		t.Errorf("error %v", err)
	}
	if report.Count != (Count{}) || !strings.Contains(out.String(), "plain words") {
		t.Errorf("report %+v, output %q", report, &out)
	}
}

func TestReportErrLimitsItsNames(t *testing.T) {
	r := Report{Count: Count{Failed: 30}}
	for range 30 {
		r.Names = append(r.Names, "p TestX")
	}
	if err := r.Err(); !strings.HasSuffix(err.Error(), "and 10 more") {
		t.Errorf("got %v", err)
	}
}

func TestTailKeepsTheEnd(t *testing.T) {
	var kept tail
	for range 3 * keptOutput {
		kept.add("x")
	}
	kept.add("end\n")
	if q := kept.quoted(); !strings.HasSuffix(q, "xend\n") || !strings.Contains(q, "(cut)") || len(kept.text) > 2*keptOutput {
		t.Errorf("kept %d bytes, ends %q", len(kept.text), q[len(q)-10:])
	}
}

func FuzzTally(f *testing.F) {
	f.Add(`{"Action":"run","Package":"p","Test":"A/b/c"}` + "\n" + `{"Action":"fail","Package":"p"}`)
	f.Add(`{"Action":"build-output","ImportPath":"p","Output":"x"}` + "\n" + `{"Action":"fail","Package":"p","FailedBuild":"p"}`)
	f.Add("not json\n{}\n")
	f.Fuzz(func(t *testing.T, stream string) {
		report, err := Tally(strings.NewReader(stream), io.Discard)
		if report.Failed != len(report.Names) && err == nil {
			t.Errorf("%d failed, %d named", report.Failed, len(report.Names))
		}
	})
}
