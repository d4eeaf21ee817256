package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxConfig bounds a settings file, in bytes.
const maxConfig = 1 << 20

// config is a settings file: its top-level keys in their order.
type config struct {
	path    string
	entries []configEntry
}

type configEntry struct {
	key   string
	line  int // from 1
	value any // as go-toml gives it
}

func (c *config) problem(key, format string, args ...any) *problem {
	p := &problem{path: c.path, text: fmt.Sprintf(format, args...)}
	if i := slices.IndexFunc(c.entries, func(e configEntry) bool { return e.key == key }); i >= 0 {
		p.line = c.entries[i].line
	}
	return p
}

func readConfig(path string) (*config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, &problem{path: path, text: errors.Unwrap(err).Error()}
	}
	if info.Size() > maxConfig {
		return nil, &problem{path: path, text: "it is larger than 1 MiB, which no settings file is"}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, &problem{path: path, text: errors.Unwrap(err).Error()}
	}
	entries, err := parseConfig(raw)
	var wrong *problem
	if errors.As(err, &wrong) {
		wrong.path = path
	}
	return &config{path: path, entries: entries}, err
}

// parseConfig reads the keys, their lines and values.
func parseConfig(raw []byte) ([]configEntry, error) {
	values := map[string]any{}
	if err := toml.Unmarshal(raw, &values); err != nil {
		var syntax *toml.DecodeError
		if errors.As(err, &syntax) {
			line, _ := syntax.Position()
			return nil, &problem{line: line, text: syntax.Error()}
		}
		return nil, &problem{text: err.Error()}
	}
	var entries []configEntry
	var p unstable.Parser
	p.Reset(raw)
	for p.NextExpression() {
		e := p.Expression()
		key := e.Key()
		if !key.Next() {
			continue
		}
		node := key.Node()
		line := p.Shape(node.Raw).Start.Line
		if e.Kind != unstable.KeyValue || !key.IsLast() {
			return nil, &problem{line: line, text: fmt.Sprintf("there are no tables such as %q: write KEY = VALUE", node.Data)}
		}
		name := string(node.Data)
		entries = append(entries, configEntry{key: name, line: line, value: values[name]})
	}
	if err := p.Error(); err != nil {
		return nil, &problem{text: err.Error()}
	}
	return entries, nil
}
