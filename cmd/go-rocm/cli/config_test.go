//go:build linux && amd64

package cli

import (
	"bytes"
	"errors"
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

// The package installs a file that names every key; it is written by
// `go test -update`.
func TestDefaultConfigIsThePackages(t *testing.T) {
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

// Uncommented, the defaults are what serve has without a file.
func TestDefaultConfigGivesTheDefaults(t *testing.T) {
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
	entries, err := parseConfig([]byte(strings.Join(lines, "")))
	if err != nil {
		t.Fatal(err)
	}
	cmd, f := newServe()
	if _, err := applyConfig(cmd.Flags(), &config{entries: entries}); err != nil {
		t.Fatal(err)
	}
	_, fresh := newServe()
	if got, want := len(entries), len(configKeys(cmd.Flags())); got != want {
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

func TestConfigSetsFlags(t *testing.T) {
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
		t.Errorf("the file's address %q went before the command line's", f.listen)
	}
	if model, err := f.configure(cmd, []string{"/srv/b.gguf"}); err != nil || model != "/srv/b.gguf" {
		t.Errorf("the command line's model: %q, %v", model, err)
	}
}

func TestCheckConfigTellsWhatIsWrong(t *testing.T) {
	model := filepath.Join(t.TempDir(), "m.gguf")
	if err := os.WriteFile(model, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("good\nbad # of the office\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(gateway.EnvAPIKey, "")
	head := "model = '" + model + "'\n"
	for name, tt := range map[string]struct {
		text string
		want []string // after "PATH", or "PATH:"
	}{
		"nothing":           {head, nil},
		"empty":             {"", []string{": model is empty: set it"}},
		"empty model":       {"\n\nmodel = ''", []string{":3: model is empty: set it"}},
		"unknown":           {head + "colour = 1", []string{`:2: unknown key "colour": there are model, adapter, `}},
		"not serve's":       {head + "config = 'a'\nverbose = true", []string{`:2: unknown key "config"`, `:3: unknown key "verbose"`}},
		"underscore":        {head + "api_key_file = 'a'", []string{`:2: unknown key "api_key_file": it is written api-key-file`}},
		"three at once":     {head + "context = 'a'\nslots = true\nadapter = 'x'", []string{":2: context: a does not fit: write a whole number", ":3: slots: true does not fit", ":4: adapter: x does not fit: write a list"}},
		"number in list":    {head + "adapter = ['a', 3]", []string{":2: adapter: every element must be a string in quotes, not 3"}},
		"no duration":       {head + "drain = '5 apples'", []string{":2: drain: "}},
		"number for time":   {head + "drain = 5", []string{":2: drain: 5 does not fit: write a time in quotes"}},
		"number for model":  {"model = 1", []string{":1: model must be a string in quotes"}},
		"table":             {head + "[serve]\nlisten = 'a'", []string{`:2: there are no tables such as "serve"`}},
		"dotted":            {head + "a.b = 1", []string{`:2: there are no tables such as "a"`}},
		"syntax":            {head + "listen = 127.0.0.1", []string{":2: "}},
		"twice":             {head + "slots = 1\nslots = 2", []string{":3: "}},
		"absent model":      {"model = '/nonexistent/a.gguf'", []string{":1: model: open /nonexistent/a.gguf: no such file"}},
		"absent adapter":    {head + "adapter = ['" + model + "', '/nonexistent/b']", []string{":2: adapter: open /nonexistent/b"}},
		"open to the world": {head + "listen = '0.0.0.0:80'", []string{": other machines can reach 0.0.0.0:80, so an API key is required"}},
		"no such keys":      {head + "api-key-file = '/nonexistent/keys'", []string{": api keys: open /nonexistent/keys"}},
		"a remark as key":   {head + "api-key-file = '" + keys + "'", []string{": api keys: " + keys + `:2: a key must not contain ' '`}},
		"no certificate":    {head + "tls-cert = '" + model + "'\ntls-key = '" + model + "'", []string{": tls: " + model}},
		"half of tls":       {head + "tls-cert = '" + model + "'", []string{": --tls-cert and --tls-key must be set together"}},
	} {
		path := writeConfig(t, tt.text)
		err := checkConfig(path)
		if len(tt.want) == 0 {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, errConfig) {
			t.Errorf("%s: %v is no mistake in the settings", name, err)
			continue
		}
		for _, want := range tt.want {
			if !strings.Contains(err.Error(), path+want) {
				t.Errorf("%s: got %q, want %q", name, err, path+want)
			}
		}
		if got := len(strings.Split(err.Error(), "\n")); got != len(tt.want) {
			t.Errorf("%s: %d lines, want %d: %v", name, got, len(tt.want), err)
		}
	}
	if err := checkConfig("/nonexistent/config.toml"); !errors.Is(err, errConfig) || !strings.Contains(err.Error(), "/nonexistent/config.toml: no such file") {
		t.Errorf("no file: %v", err)
	}
}

// A document that the reader takes is one that go-toml takes, with the same
// keys, each on a line of it.
func FuzzConfig(f *testing.F) {
	var b bytes.Buffer
	if err := writeDefaultConfig(&b); err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		b.String(), "", "a = 1", "a.b = 1", "[a]", "[[a]]\nb = 2", "a = [1, {b = 2}]", "\"a b\" = '''\nx\n'''", "a = 1\na = 2",
		"x = 1979-05-27T07:32:00Z", "a = {b = 1", "\ufeffa = 1", "a = \"\\u00e9\"\r\nb = 0x1f",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseConfig(raw)
		if err != nil {
			if !errors.Is(err, errConfig) {
				t.Fatalf("%v is no mistake in the settings", err)
			}
			return
		}
		var want map[string]any
		if err := toml.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for _, e := range entries {
			if _, ok := want[e.key]; !ok || seen[e.key] || e.line < 1 || e.line > bytes.Count(raw, []byte("\n"))+1 {
				t.Fatalf("%+v", e)
			}
			seen[e.key] = true
		}
		if len(seen) != len(want) {
			t.Fatalf("%d keys of %d", len(seen), len(want))
		}
	})
}
