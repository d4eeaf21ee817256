package fakellama

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// flagTable holds the flags of llama-server v0.5.0, one option a line: its
// names, a tab, and the name of its value (empty: it has no value). The source
// is the output of llama-server --help.
//
//go:embed flags.txt
var flagTable string

// option is a line of the table.
type option struct {
	names []string
	hint  string
}

// values returns the number of arguments of the option.
func (o option) values() int {
	switch o.hint {
	case "":
		return 0
	case "START END":
		return 2
	}
	return 1
}

func options() []option {
	var out []option
	for line := range strings.Lines(flagTable) {
		names, hint, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
		out = append(out, option{strings.Split(names, ","), hint})
	}
	return out
}

// args holds the flags that the fake uses.
type args struct {
	host       string
	port       int
	model      string
	alias      string
	slots      int
	context    int
	keys       []string
	loras      []string
	slotSave   string
	projector  string
	marker     string // of the environment
	embeddings bool
	reranking  bool
	help       bool
	version    bool
	devices    bool // --list-devices
}

// parseArgs reads llama-server's flags. Flags in old are unknown.
func parseArgs(argv, old []string) (args, error) {
	a := args{host: "127.0.0.1", port: 8080, slots: 4, context: 4096}
	known := map[string]option{}
	for _, o := range options() {
		for _, n := range o.names {
			if !slices.Contains(old, n) {
				known[n] = o
			}
		}
	}
	for i := 0; i < len(argv); i++ {
		name := argv[i]
		o, ok := known[name]
		if !ok {
			return a, fmt.Errorf("error: invalid argument: %s", name)
		}
		n := o.values()
		if i+n >= len(argv) {
			return a, fmt.Errorf("error while handling argument %q: expected value for argument", name)
		}
		value := ""
		if n > 0 {
			value = argv[i+1]
		}
		i += n
		if err := a.set(o, value); err != nil {
			return a, fmt.Errorf("error while handling argument %q: %w", name, err)
		}
	}
	return a, nil
}

func (a *args) set(o option, value string) (err error) {
	switch o.names[len(o.names)-1] {
	case "--host":
		a.host = value
	case "--port":
		a.port, err = strconv.Atoi(value)
	case "--model":
		a.model = value
	case "--alias":
		a.alias = aliasOf(value)
	case "--parallel":
		a.slots, err = strconv.Atoi(value)
	case "--ctx-size":
		a.context, err = strconv.Atoi(value)
	case "--api-key":
		a.keys = append(a.keys, parseRow(value)...)
	case "--lora":
		a.loras = append(a.loras, parseRow(value)...)
	case "--mmproj":
		a.projector = value
	case "--slot-save-path":
		a.slotSave = value
	case "--embeddings":
		a.embeddings = true
	case "--reranking":
		a.reranking = true
	case "--version":
		a.version = true
	case "--list-devices":
		a.devices = true
	case "--usage":
		a.help = true
	}
	return err
}

// parseRow splits a list as llama-server does (parse_csv_row in common/arg.cpp): at
// commas outside double quotes, which a field begins with.
func parseRow(s string) []string {
	var fields []string
	var field strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"' && !quoted && field.Len() == 0:
			quoted = true
		case s[i] == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			field.WriteByte('"')
			i++
		case s[i] == '"' && quoted:
			quoted = false
		case s[i] == ',' && !quoted:
			fields = append(fields, field.String())
			field.Reset()
		default:
			field.WriteByte(s[i])
		}
	}
	return append(fields, field.String())
}

// aliasOf returns the name that llama-server gives a model: the first in the order
// of the alphabet (model_alias is a std::set).
func aliasOf(value string) string {
	var names []string
	for name := range strings.SplitSeq(value, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// help writes the flags in the columns of llama-server's help.
func help(w io.Writer, old []string) error {
	if _, err := io.WriteString(w, "----- common params -----\n\n"); err != nil {
		return err
	}
	for _, o := range options() {
		names := slices.DeleteFunc(slices.Clone(o.names), func(n string) bool { return slices.Contains(old, n) })
		if len(names) == 0 {
			continue
		}
		head := strings.TrimSpace(strings.Join(names, ", ") + " " + o.hint)
		if _, err := fmt.Fprintf(w, "%-39s as in llama-server\n", head); err != nil {
			return err
		}
	}
	return nil
}
