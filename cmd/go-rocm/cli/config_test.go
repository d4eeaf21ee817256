//go:build linux && amd64

package cli

import (
	"bytes"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"forge.lthn.ai/core/go-rocm/internal/gateway"
)

// The Debian package installs a configuration file with every key, which
// `go test -update` writes.
func TestDefaultConfigIsInstalled(t *testing.T) {
	const golden = "../../../packaging/assets/debian/config.toml"
	var b bytes.Buffer
	if err := writeDefaultConfig(&b); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b.Bytes()) {
		t.Errorf("the flags of serve and %s differ: go test ./cmd/go-rocm/cli -run DefaultConfig -update", golden)
	}
	for line := range strings.Lines(b.String()) {
		if len(line) > 81 && strings.HasPrefix(line, "# ") {
			t.Errorf("long line: %s", line)
		}
	}
}

// Uncommented, the keys of the default file have the defaults of the flags.
func TestDefaultConfigEqualsDefaults(t *testing.T) {
	var b bytes.Buffer
	if err := writeDefaultConfig(&b); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(b.String()) {
		if key, _, ok := strings.Cut(strings.TrimPrefix(line, "#"), " = "); ok && !strings.Contains(key, " ") {
			line = strings.TrimPrefix(line, "#")
		}
		lines = append(lines, line)
	}
	c, err := parseConfig([]byte(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	cmd, f := newServe()
	if _, err := applyConfig(cmd.Flags(), c, configKeys(cmd.Flags()), nil); err != nil {
		t.Fatal(err)
	}
	_, fresh := newServe()
	if got, want := len(c.entries), len(configKeys(cmd.Flags())); got != want {
		t.Errorf("%d keys, want %d", got, want)
	}
	if !reflect.DeepEqual(f, fresh) {
		t.Errorf("got %+v, want %+v", f, fresh)
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigSetsFlagsUnlessOnCommandLine(t *testing.T) {
	path := writeConfig(t, `
model = "/srv/a.gguf"   # ours
listen = "unix:/run/a"
context = 4_096
require-gpu = true
drain = "5s"
adapter = ["/srv/one", "/srv/two"]
`)
	cmd, f := newServe()
	if err := cmd.ParseFlags([]string{"--config", path, "--listen", "127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	model, err := f.configure(cmd, nil)
	if err != nil {
		t.Fatal(err)
	}
	if model != "/srv/a.gguf" || f.context != 4096 || !f.requireGPU || f.drain != 5*time.Second || !slices.Equal(f.adapters, []string{"/srv/one", "/srv/two"}) {
		t.Errorf("got %q, %+v", model, f)
	}
	if f.listen != "127.0.0.1:1" {
		t.Errorf("the file's address %q replaced the command line's", f.listen)
	}
	if model, err := f.configure(cmd, []string{"/srv/b.gguf"}); err != nil || model != "/srv/b.gguf" {
		t.Errorf("the command line's model: %q, %v", model, err)
	}
}

// Every document that the parser accepts is valid TOML with the same keys, each
// on a line of the document.
func FuzzConfig(f *testing.F) {
	var b bytes.Buffer
	if err := writeDefaultConfig(&b); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		b.String(), "", "a = 1", "a.b = 1", "[a]", "[[a]]\nb = 2", "a = [1, {b = 2}]", "\"a b\" = '''\nx\n'''", "a = 1\na = 2",
		"x = 1979-05-27T07:32:00Z", "a = {b = 1", "[a.b]\nc = 1\n[a]\nd = 2\n[a.\"b c\"]\n[[a.e]]", "a = 1\n[b.c]\nd = []\n[b.'']\n", "\ufeffa = 1", "a = \"\\u00e9\"\r\nb = 0x1f",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := parseConfig(raw)
		if err != nil {
			if !errors.Is(err, errConfig) {
				t.Fatalf("%v is not errConfig", err)
			}
			return
		}
		var want map[string]any
		if err := toml.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		top := map[string]bool{}
		check := func(entries []configEntry, table map[string]any) {
			seen := map[string]bool{}
			for _, e := range entries {
				if _, ok := table[e.key]; !ok || seen[e.key] || e.line < 1 || e.line > bytes.Count(raw, []byte("\n"))+1 {
					t.Fatalf("%+v", e)
				}
				seen[e.key] = true
			}
		}
		check(c.entries, want)
		for _, e := range c.entries {
			top[e.key] = true
		}
		for _, table := range c.tables {
			check(table.entries, tableAt(want, table.path))
			top[table.path[0]] = true
		}
		if len(top) != len(want) {
			t.Fatalf("%d keys of %d", len(top), len(want))
		}
	})
}

// docs/serve.md has every key of a configuration file, and its tables have no other.
func TestDocumentListsKeys(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/serve.md")
	if err != nil {
		t.Fatal(err)
	}
	cmd, _ := newServe()
	limits := slices.Collect(maps.Keys(keySettings(&gateway.Key{})))
	for heading, keys := range map[string][]string{
		"## Several models\n":   append(configKeys(cmd.Flags()), modelKey, "aliases", "pinned"),
		"## Keys with limits\n": limits,
	} {
		_, section, _ := strings.Cut(string(raw), heading)
		section, _, _ = strings.Cut(section, "\n## ")
		for _, key := range keys {
			if key != "alias" && !strings.Contains(section, "`"+key+"`") { // aliases is its name in a table
				t.Errorf("docs/serve.md lacks %s below %q", key, heading)
			}
		}
		rows := 0
		for line := range strings.Lines(section) {
			cell, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " |")
			if !strings.HasPrefix(line, "| `") {
				continue
			}
			for i, key := range strings.Split(cell, "`") {
				if rows++; i%2 == 1 && !slices.Contains(keys, key) {
					t.Errorf("docs/serve.md has %s below %q, which is no key", key, heading)
				}
			}
		}
		if rows == 0 {
			t.Errorf("docs/serve.md has no table below %q", heading)
		}
	}
}
