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

// Flags is what a llama-server's --help says it takes.
type Flags struct {
	// Takes says for each flag, in every spelling, whether a value follows it.
	TakesValue map[string]bool `json:"takes_value"`
}

// Probe asks a program for its flags.
type Probe struct {
	// Argv and Dir start the program, as in Spec.
	Argv []string
	Dir  string
	// Digest names the program's content; empty: the sha256 of the file that
	// Argv ends with.
	Digest string
	// CacheDir keeps answers by digest; empty: nothing is kept.
	CacheDir string
}

// ParseHelp reads the text of --help. An entry starts at the line's beginning
// with its spellings, then perhaps a value's name, then two or more spaces or
// the line's end (common_arg::to_string in common/arg.cpp).
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
		return nil, fmt.Errorf("%w: its --help lists no flags; is it a llama-server?", ErrInvalidSpec)
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
			return nil, false // a ruler between sections
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

// Knows reports whether the program takes a flag of this spelling.
func (f *Flags) Has(flag string) bool {
	_, ok := f.TakesValue[flag]
	return ok
}

// renames are groups of spellings that mean the same in different versions of
// llama-server, so that either can stand for the other.
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

// Adapt gives args as this program takes them: a flag that it does not know is
// renamed where it has another name for it, else dropped with its value; a value
// that it does not take is dropped. The notes say what was changed.
func (f *Flags) Adapt(args []string) (kept, notes []string) {
	for i := 0; i < len(args); {
		flag, inline, hasInline := strings.Cut(args[i], "=")
		if !isFlag(flag) {
			kept = append(kept, args[i])
			i++
			continue
		}
		var values []string
		next := i + 1
		for !hasInline && next < len(args) && !isFlag(args[next]) {
			values = append(values, args[next])
			next++
		}
		i = next
		name := f.spelling(flag)
		switch {
		case name == "":
			notes = append(notes, fmt.Sprintf("%s is not known to this llama-server and was left out", flag))
			continue
		case name != flag:
			notes = append(notes, fmt.Sprintf("%s is called %s in this llama-server", flag, name))
		}
		if !f.TakesValue[name] && len(values) > 0 {
			notes = append(notes, fmt.Sprintf("%s takes no value in this llama-server: %q was left out", name, strings.Join(values, " ")))
			if isOff(values[0]) {
				continue
			}
			values = nil
		}
		if hasInline {
			name += "=" + inline
		}
		kept = append(append(kept, name), values...)
	}
	return kept, notes
}

// dashed is a long flag with dashes for underscores: llama-server takes either
// (common_params_parse_ex in common/arg.cpp).
func dashed(flag string) string {
	if strings.HasPrefix(flag, "--") {
		return strings.ReplaceAll(flag, "_", "-")
	}
	return flag
}

// spelling gives the name under which the program knows a flag, or nothing.
func (f *Flags) spelling(flag string) string {
	if flag = dashed(flag); f.Has(flag) {
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

// Unknown gives the flags among args that Adapt would leave out.
func (f *Flags) Unknown(args []string) []string {
	var out []string
	for _, a := range args {
		if flag, _, _ := strings.Cut(a, "="); isFlag(flag) && f.spelling(flag) == "" {
			out = append(out, flag)
		}
	}
	return out
}

// Names lists every spelling, sorted.
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
