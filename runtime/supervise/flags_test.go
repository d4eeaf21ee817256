package supervise

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// helpText has each form of entry that common_arg::to_string writes.
const helpText = `----- common params -----

-h,    --help, --usage                  print usage and exit
--version                               show version
-c,    --ctx-size N                     size of the context (default: 0)
                                        (env: LLAMA_ARG_CTX_SIZE)
-np,   --parallel N                     number of slots
--kv-unified, -kvu, --no-kv-unified, -no-kvu
                                        share the cache
--webui, --no-webui                     the page
-fa,   --flash-attn                     flash attention
-lm,   --load-mode MODE                 one of
                                        - none: no special mode
--lora FNAME                            adapter
--control-vector-layer-range START END  range
-lv,   --verbosity, --log-verbosity N
                                        threshold
`

func TestParseHelp(t *testing.T) {
	f, err := ParseHelp([]byte(helpText))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{
		"-h": false, "--help": false, "--usage": false, "--version": false, "-c": true, "--ctx-size": true,
		"-np": true, "--parallel": true, "--kv-unified": false, "-kvu": false, "--no-kv-unified": false, "-no-kvu": false,
		"--webui": false, "--no-webui": false, "-fa": false, "--flash-attn": false, "-lm": true, "--load-mode": true,
		"--lora": true, "--control-vector-layer-range": true, "-lv": true, "--verbosity": true, "--log-verbosity": true,
	}
	// Only the last spelling of an entry precedes the value's name, but all of them
	// take the value.
	if d := cmp.Diff(want, f.TakesValue); d != "" {
		t.Error(d)
	}
	for _, text := range []string{"", "no flags here\n", "-----\n"} {
		if _, err := ParseHelp([]byte(text)); !errors.Is(err, ErrInvalidSpec) {
			t.Errorf("%q: %v, want ErrInvalidSpec", text, err)
		}
	}
}

func TestAdapt(t *testing.T) {
	f, err := ParseHelp([]byte(helpText))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name       string
		args, want []string
		notes      int
	}{
		{"known", []string{"--ctx-size", "4096", "-np", "2"}, []string{"--ctx-size", "4096", "-np", "2"}, 0},
		{"negative value", []string{"-c", "-1"}, []string{"-c", "-1"}, 0},
		{"renamed", []string{"--no-ui", "-c", "1"}, []string{"--no-webui", "-c", "1"}, 1},
		{"unknown with values", []string{"--fit", "on", "--fit-target", "1,2", "-np", "1"}, []string{"-np", "1"}, 2},
		{"value not taken", []string{"--flash-attn", "on"}, []string{"--flash-attn"}, 1},
		{"value not taken, off", []string{"--flash-attn", "off", "-np", "1"}, []string{"-np", "1"}, 1},
		{"inline value", []string{"--ctx-size=8"}, []string{"--ctx-size", "8"}, 0},
		{"inline value not taken", []string{"--webui=off", "-np", "1"}, []string{"-np", "1"}, 1},
		{"value like a flag", []string{"--lora", "-a.gguf", "-np", "1"}, []string{"--lora", "-a.gguf", "-np", "1"}, 0},
		{"underscores", []string{"--ctx_size", "8"}, []string{"--ctx-size", "8"}, 1},
		{"path that starts with a dot", []string{"--lora", "./a.gguf"}, []string{"--lora", "./a.gguf"}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, notes := f.Adapt(tt.args)
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if len(notes) != tt.notes {
				t.Errorf("notes: %q, want %d", notes, tt.notes)
			}
		})
	}
}

func TestUnknownArgs(t *testing.T) {
	f, err := ParseHelp([]byte(helpText))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ args, want []string }{
		{[]string{"-c", "1", "--lora=a.gguf", "--control-vector-layer-range", "1", "2", "--webui", "--ctx_size", "-1"}, nil},
		{[]string{"--lora", "--odd-name", "--no-ui"}, nil},
		{[]string{"--fit", "on", "-np", "1"}, []string{"--fit"}},
		{[]string{"--fit=on"}, []string{"--fit"}},
		{[]string{"stray", "-c", "1"}, []string{`"stray"`}},
		{[]string{"--webui", "off"}, []string{`"off"`}},
		{[]string{"--webui=off"}, []string{`"--webui=off"`}},
	} {
		if d := cmp.Diff(tt.want, f.Unknown(tt.args)); d != "" {
			t.Errorf("%q: %s", tt.args, d)
		}
	}
}

func FuzzParseHelp(f *testing.F) {
	f.Add([]byte(helpText))
	f.Add([]byte("-a,    --b <0|1>   c\n--"))
	f.Fuzz(func(t *testing.T, text []byte) {
		flags, err := ParseHelp(text)
		if err != nil {
			return
		}
		for _, name := range flags.Names() {
			if name[0] != '-' {
				t.Errorf("%q is no flag", name)
			}
		}
	})
}
