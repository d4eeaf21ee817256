package supervise

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Flags lists the flags that a llama-server's --help describes.
type Flags struct {
	// TakesValue maps each flag, in every spelling, to whether a value follows it.
	TakesValue map[string]bool `json:"takes_value"`
}

// Probe describes a program whose flags ProbeFlags reads.
type Probe struct {
	// Argv and Dir start the program, as in Spec.
	Argv []string
	Dir  string
	// Digest identifies the program's content. Empty means the SHA-256 of the file that
	// Argv ends with.
	Digest string
	// CacheDir is the directory for results, by digest. Empty: nothing is cached.
	CacheDir string
}

// ParseHelp parses the text of --help. An entry starts at the beginning of a line
// with its spellings, then the name of a value if it takes one, then two or more
// spaces or the end of the line (common_arg::to_string in common/arg.cpp).
func ParseHelp(text []byte) (*Flags, error) {
	f := &Flags{TakesValue: map[string]bool{}}
	sc := bufio.NewScanner(bytes.NewReader(text))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		names, takes := parseHelpLine(sc.Text())
		for _, n := range names {
			f.TakesValue[n] = f.TakesValue[n] || takes
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("read --help: %w", err)
	}
	if len(f.TakesValue) == 0 {
		return nil, fmt.Errorf("%w: its --help lists no flags; is the program a llama-server?", ErrInvalidSpec)
	}
	return f, nil
}

func parseHelpLine(line string) (names []string, takes bool) {
	rest := line
	for strings.HasPrefix(rest, "-") {
		end := strings.IndexAny(rest, ", ")
		if end < 0 {
			end = len(rest)
		}
		name := rest[:end]
		if strings.Trim(name, "-") == "" {
			return nil, false // a rule between sections
		}
		names = append(names, name)
		rest = rest[end:]
		after, more := strings.CutPrefix(rest, ",")
		if !more {
			break
		}
		rest = strings.TrimLeft(after, " ")
	}
	if len(names) == 0 {
		return nil, false
	}
	takes = len(rest) > 1 && rest[0] == ' ' && rest[1] != ' '
	return names, takes
}

// Has reports whether the program accepts a flag of this spelling.
func (f *Flags) Has(flag string) bool {
	_, ok := f.TakesValue[flag]
	return ok
}

// renames returns groups of spellings with the same meaning in different versions of
// llama-server.
func renames() [][]string {
	return [][]string{
		{"--ui", "--webui"},
		{"--no-ui", "--no-webui"},
		{"--embeddings", "--embedding"},
		{"--reranking", "--rerank"},
		{"--spec-draft-model", "--model-draft", "-md"},
		{"--gpu-layers", "--n-gpu-layers", "-ngl"},
		{"--spec-draft-n-max", "--draft-max"},
		{"--spec-draft-n-min", "--draft-min"},
		{"--verbosity", "--log-verbosity", "-lv"},
	}
}

// Adapt returns args as this program accepts them. It separates a value that is
// joined to its flag with an equals sign, renames a flag that the program lists under
// another name, drops an unknown flag with its value, and drops the value of a flag
// that takes none. The notes describe the changes but the first.
func (f *Flags) Adapt(args []string) (kept, notes []string) {
	for i := 0; i < len(args); {
		flag, inline, hasInline := strings.Cut(args[i], "=")
		if !isFlag(flag) {
			kept = append(kept, args[i])
			i++
			continue
		}
		name := f.spelling(flag)
		var values []string
		next := i + 1
		if hasInline { // llama-server does not accept --flag=value
			values = []string{inline}
		}
		for !hasInline && next < len(args) && (!isFlag(args[next]) || f.TakesValue[name] && len(values) == 0) {
			values = append(values, args[next])
			next++
		}
		i = next
		switch {
		case name == "":
			notes = append(notes, fmt.Sprintf("this llama-server does not accept %s; it was left out", flag))
			continue
		case name != flag:
			notes = append(notes, fmt.Sprintf("%s is called %s in this llama-server", flag, name))
		}
		if !f.TakesValue[name] && len(values) > 0 {
			notes = append(notes, fmt.Sprintf("%s has no value in this llama-server: %q was omitted", name, strings.Join(values, " ")))
			if isOff(values[0]) {
				continue
			}
			values = nil
		}
		kept = append(append(kept, name), values...)
	}
	return kept, notes
}

// withDashes returns a long flag with dashes for underscores: llama-server accepts
// either (common_params_parse_ex in common/arg.cpp).
func withDashes(flag string) string {
	if strings.HasPrefix(flag, "--") {
		return strings.ReplaceAll(flag, "_", "-")
	}
	return flag
}

// spelling returns the program's name of a flag, empty if it has none.
func (f *Flags) spelling(flag string) string {
	if flag = withDashes(flag); f.Has(flag) {
		return flag
	}
	for _, group := range renames() {
		if !slices.Contains(group, flag) {
			continue
		}
		for _, other := range group {
			if f.Has(other) {
				return other
			}
		}
	}
	return ""
}

// Unknown returns the flags and values among args that Adapt would drop: unknown
// flags, values after flags that take none, and values before the first flag.
func (f *Flags) Unknown(args []string) []string {
	var out []string
	wants, takes := false, false // the next argument is a value, and may be one
	for _, a := range args {
		flag, _, inline := strings.Cut(a, "=")
		name := f.spelling(flag)
		switch {
		case wants:
			wants = false
		case !isFlag(flag):
			if !takes {
				out = append(out, strconv.Quote(a))
			}
		case name == "":
			out, takes = append(out, flag), true // its values count with it
		case inline && !f.TakesValue[name]:
			out, takes = append(out, strconv.Quote(a)), false
		default:
			takes = f.TakesValue[name] && !inline
			wants = takes
		}
	}
	return out
}

// Names returns every spelling, sorted.
func (f *Flags) Names() []string { return slices.Sorted(maps.Keys(f.TakesValue)) }

func isFlag(s string) bool {
	if len(s) < 2 || s[0] != '-' {
		return false
	}
	_, err := strconv.ParseFloat(s, 64)
	return err != nil
}

func isOff(v string) bool {
	return slices.Contains([]string{"off", "false", "0", "no", "disabled", "none"}, strings.ToLower(v))
}
