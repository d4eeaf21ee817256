package cli

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// maxConfigSize limits a configuration file, in bytes.
const maxConfigSize = 1 << 20

// errConfig marks a configuration file that cannot be used. Its exit status makes
// a service manager stop restarting the service.
var errConfig = errors.New("config")

// configError is one mistake in a configuration file.
type configError struct {
	path string
	line int // 0 when the mistake belongs to no line
	text string
	// passing is set for what may change without a change of the file, such as a GPU
	// whose driver is not loaded yet: a service manager may try again.
	passing bool
}

// Error formats the mistake as compilers do: file, line, and what to change.
func (e *configError) Error() string {
	if e.line == 0 {
		return e.path + ": " + e.text
	}
	return fmt.Sprintf("%s:%d: %s", e.path, e.line, e.text)
}

// Is makes every configError an errConfig, unless it may pass.
func (e *configError) Is(target error) bool { return target == errConfig && !e.passing }

// configFile is a parsed configuration file: its keys outside of tables and its
// tables, in their order.
type configFile struct {
	path    string
	entries []configEntry
	tables  []configTable
	header  int // the line of a key that the file does not have
}

type configEntry struct {
	key   string
	line  int // from 1
	value any // of the type that go-toml decodes to
}

// configTable is a table such as [keys.alice], with the keys below its header.
type configTable struct {
	path    []string // such as keys, alice
	line    int      // of the header
	entries []configEntry
}

// errorf returns a configError at the line of a key outside of tables.
func (c *configFile) errorf(key, format string, args ...any) *configError {
	return c.errorAt(c.line(key), format, args...)
}

// errorAt returns a configError at a line.
func (c *configFile) errorAt(line int, format string, args ...any) *configError {
	return &configError{path: c.path, line: line, text: fmt.Sprintf(format, args...)}
}

// line returns the line of a key outside of tables. For a key that the file does not
// have it is 0 or, in a file that withDefaults returned, the line of the table.
func (c *configFile) line(key string) int {
	if i := slices.IndexFunc(c.entries, func(e configEntry) bool { return e.key == key }); i >= 0 {
		return c.entries[i].line
	}
	return c.header
}

// The names of the tables besides keysTable: [defaults] and [models.NAME].
const defaultsTable, modelsTable = "defaults", "models"

// tablesOf returns the tables that begin with a name.
func (c *configFile) tablesOf(first string) []configTable {
	if c == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.tables), func(t configTable) bool { return t.path[0] != first || len(t.entries) == 0 && len(t.path) == 1 })
}

// asFile returns a table as a file of its own.
func (c *configFile) asFile(t configTable) *configFile {
	return &configFile{path: c.path, entries: slices.Clone(t.entries), header: t.line}
}

// withDefaults returns a table as a file of its own, which also has the keys of
// [defaults] that the table does not have.
func (c *configFile) withDefaults(t configTable) *configFile {
	out := c.asFile(t)
	for _, d := range c.tablesOf(defaultsTable) {
		for _, e := range d.entries {
			if !slices.ContainsFunc(t.entries, func(own configEntry) bool { return own.key == e.key }) {
				out.entries = append(out.entries, e)
			}
		}
	}
	return out
}

func readConfig(path string) (*configFile, error) {
	raw, err := regfile.ReadText(path, maxConfigSize)
	switch {
	case errors.Is(err, regfile.ErrTooLarge):
		return nil, &configError{path: path, text: "larger than 1 MiB, which no configuration file is"}
	case errors.Is(err, regfile.ErrNotRegular):
		return nil, &configError{path: path, text: regfile.ErrNotRegular.Error()}
	case errors.Is(err, regfile.ErrNotUTF8):
		return nil, &configError{path: path, line: 1, text: errors.Unwrap(err).Error()}
	case err != nil:
		return nil, &configError{path: path, text: errors.Unwrap(err).Error()}
	}
	c, err := parseConfig(raw)
	var invalid *configError
	if errors.As(err, &invalid) {
		invalid.path = path
		return nil, err
	}
	c.path = path
	return c, err
}

// parseConfig returns the keys and tables with their lines and values. Keys with
// dots and arrays of tables are errors.
func parseConfig(raw []byte) (*configFile, error) {
	values := map[string]any{}
	if err := toml.Unmarshal(raw, &values); err != nil {
		var syntax *toml.DecodeError
		if errors.As(err, &syntax) {
			line, _ := syntax.Position()
			return nil, &configError{line: line, text: syntax.Error()}
		}
		return nil, &configError{text: err.Error()}
	}
	c := &configFile{}
	var p unstable.Parser
	p.Reset(raw)
	entries, decoded := &c.entries, values
	for p.NextExpression() {
		e := p.Expression()
		path, line := keyPath(&p, e)
		if len(path) == 0 {
			continue // a comment
		}
		switch {
		case e.Kind == unstable.Table:
			c.tables = append(c.tables, configTable{path: path, line: line})
			entries, decoded = &c.tables[len(c.tables)-1].entries, tableAt(values, path)
		case e.Kind != unstable.KeyValue || len(path) > 1:
			return nil, &configError{line: line, text: fmt.Sprintf("unexpected table %q: write KEY = VALUE", path[0])}
		default:
			*entries = append(*entries, configEntry{key: path[0], line: line, value: decoded[path[0]]})
		}
	}
	if err := p.Error(); err != nil {
		return nil, &configError{text: err.Error()}
	}
	return c, nil
}

// keyPath returns the parts of the key of an expression, and its line.
func keyPath(p *unstable.Parser, e *unstable.Node) (path []string, line int) {
	for key := e.Key(); key.Next(); {
		node := key.Node()
		if path == nil {
			line = p.Shape(node.Raw).Start.Line
		}
		path = append(path, string(node.Data))
	}
	return path, line
}

// tableAt returns the table with that path.
func tableAt(values map[string]any, path []string) map[string]any {
	for _, name := range path {
		values, _ = values[name].(map[string]any)
	}
	return values
}

// modelKey is the one key that is not a flag of serve: there, the model is an
// argument.
const modelKey = "model"

// configKeys returns the keys of a configuration file: "model" and the flags of
// serve. Each setting is thus declared, defaulted and checked in one place.
func configKeys(fs *pflag.FlagSet) []string {
	keys := []string{modelKey}
	fs.VisitAll(func(f *pflag.Flag) {
		switch f.Name {
		case "config", "help", "pull", "verbose": // concern the command line only
		default:
			keys = append(keys, f.Name)
		}
	})
	return keys
}

// applyConfig sets the flags in fs from c, except those set on the command line,
// and returns c's model. keys are those that c may have; describe, if not nil, says
// more about another one. The error joins a configError for each mistake.
func applyConfig(fs *pflag.FlagSet, c *configFile, keys []string, describe func(key string) string) (model string, err error) {
	var errs []error
	for _, e := range c.entries {
		report := func(format string, args ...any) {
			errs = append(errs, c.errorf(e.key, format, args...))
		}
		switch flag := fs.Lookup(e.key); {
		case !slices.Contains(keys, e.key):
			text := ""
			if describe != nil {
				text = describe(e.key)
			}
			report("%s", cmp.Or(text, describeUnknownKey(e.key, keys)))
		case flag == nil: // the model
			text, ok := e.value.(string)
			if !ok {
				report("model must be a string in quotes, the path of a GGUF file")
			}
			if err := checkText(text); err != nil {
				report("model: %v", err)
				continue
			}
			model = text
		case flag.Changed:
		default:
			values, err := flagValues(flag, e.value)
			if err != nil {
				report("%s: %v", e.key, err)
				continue
			}
			for _, value := range values {
				if err := flag.Value.Set(value); err != nil {
					report("%s: %v", e.key, err)
				}
			}
		}
	}
	for _, t := range c.tables {
		switch depth := len(t.path); {
		case t.path[0] == keysTable: // namedKeys checks it
		case t.path[0] == defaultsTable && depth == 1, t.path[0] == modelsTable && (depth == 2 || depth == 1 && len(t.entries) == 0):
		default:
			errs = append(errs, c.errorAt(t.line, "unexpected table %q: write KEY = VALUE, and tables as [defaults], [models.NAME] or [keys.NAME]", strings.Join(t.path, ".")))
		}
	}
	return model, errors.Join(errs...)
}

func describeUnknownKey(key string, keys []string) string {
	if other := strings.ReplaceAll(key, "_", "-"); slices.Contains(keys, other) {
		return fmt.Sprintf("unknown key %q: write %s", key, other)
	}
	return fmt.Sprintf("unknown key %q: the keys are %s", key, strings.Join(keys, ", "))
}

// flagValues converts a TOML value to the strings that the flag would have on a
// command line, one for each occurrence.
func flagValues(flag *pflag.Flag, value any) ([]string, error) {
	kind := flag.Value.Type()
	switch v := value.(type) {
	case bool:
		if kind == "bool" {
			return []string{strconv.FormatBool(v)}, nil
		}
	case int64:
		if kind == "int" {
			return []string{strconv.FormatInt(v, 10)}, nil
		}
	case string:
		if kind == "string" || kind == "duration" {
			return []string{v}, checkText(v)
		}
	case []any:
		if kind != "stringArray" {
			break
		}
		var texts []string
		for _, element := range v {
			text, ok := element.(string)
			if !ok {
				return nil, fmt.Errorf("every element must be a string in quotes, not %v", element)
			}
			if err := checkText(text); err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		return texts, nil
	}
	return nil, fmt.Errorf("invalid value %v: write %s", value, map[string]string{
		"bool": "true or false", "int": "a whole number", "string": "a string in quotes",
		"duration":    `a duration in quotes, such as "20s" or "5m"`,
		"stringArray": `a list of strings, such as ["a", "b"]`,
	}[kind])
}

// checkText rejects what no file name and no argument of a program can have.
func checkText(text string) error {
	if strings.ContainsRune(text, 0) {
		return fmt.Errorf("%q contains a NUL character; remove it", text)
	}
	return nil
}

// mistakenKeys returns the keys outside of tables that an error of applyConfig is about.
func (c *configFile) mistakenKeys(err error) []string {
	var keys []string
	for _, err := range joined(err) {
		var mistake *configError
		if !errors.As(err, &mistake) {
			continue
		}
		for _, e := range c.entries {
			if e.line == mistake.line {
				keys = append(keys, e.key)
			}
		}
	}
	return keys
}

// joined returns the errors that errors.Join has joined, also in several steps; err
// itself if it is another one, and none if it is nil.
func joined(err error) []error {
	list, ok := err.(interface{ Unwrap() []error }) // not errors.As: a wrapped one is another error
	switch {
	case err == nil:
		return nil
	case !ok || reflect.TypeOf(err) != reflect.TypeOf(errors.Join(err)):
		return []error{err}
	}
	var out []error
	for _, each := range list.Unwrap() {
		out = append(out, joined(each)...)
	}
	return out
}

// byLine joins errors: those of a configuration file by line, then the others. Of equal
// ones, such as a mistake in [defaults] that every model has, one is left.
func byLine(errs []error) error {
	var all []error
	seen := map[string]bool{}
	for _, err := range joined(errors.Join(errs...)) {
		if text := err.Error(); !seen[text] {
			seen[text] = true
			all = append(all, err)
		}
	}
	line := func(err error) int {
		var mistake *configError
		if errors.As(err, &mistake) {
			return mistake.line
		}
		return math.MaxInt
	}
	slices.SortStableFunc(all, func(a, b error) int { return cmp.Compare(line(a), line(b)) })
	return errors.Join(all...)
}
