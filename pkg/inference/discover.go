package inference

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DiscoveredModel is a model found on disk. It was looked at, not loaded.
type DiscoveredModel struct {
	// Path is absolute: the directory of a safetensors model, the file of a GGUF
	// model (the first part when it is split).
	Path string
	// ModelType is model_type of config.json, or general.architecture of a GGUF.
	ModelType string
	// QuantBits is the number of bits of a weight, 0 when the model does not say.
	QuantBits int
	// QuantGroup is the number of weights that share a scale, 0 when there is none.
	QuantGroup int
	// NumFiles is the number of weight files.
	NumFiles int
}

// maxConfigBytes bounds config.json; real ones are a few KiB.
const maxConfigBytes = 4 << 20

// Discover yields the models in baseDir itself and in its direct children: a directory with
// config.json and *.safetensors is one model, and so is every GGUF file. The parts of a split
// file count as one; projectors and adapters are not models and are omitted. Unreadable files
// are skipped. The order is the directory itself, then its children by name.
func Discover(baseDir string) iter.Seq[DiscoveredModel] {
	return func(yield func(DiscoveredModel) bool) {
		base, err := filepath.Abs(baseDir)
		if err != nil {
			return
		}
		entries, err := os.ReadDir(base)
		if err != nil {
			return
		}
		if !discoverIn(base, entries, yield) {
			return
		}
		for _, e := range entries {
			dir := filepath.Join(base, e.Name())
			// Stat and not e.IsDir: model caches link to their directories.
			if st, err := os.Stat(dir); err != nil || !st.IsDir() {
				continue
			}
			children, err := os.ReadDir(dir)
			if err != nil {
				continue
			}
			if !discoverIn(dir, children, yield) {
				return
			}
		}
	}
}

// discoverIn looks at one directory and reports whether to go on.
func discoverIn(dir string, entries []os.DirEntry, yield func(DiscoveredModel) bool) bool {
	var weights, ggufs []string
	config := false
	for _, e := range entries {
		name := e.Name()
		switch ext := strings.ToLower(filepath.Ext(name)); {
		case name == "config.json":
			config = true
		case ext == ".safetensors":
			weights = append(weights, name)
		case ext == ".gguf":
			ggufs = append(ggufs, name)
		}
	}
	if config && len(weights) > 0 {
		if m, err := readConfigFile(filepath.Join(dir, "config.json")); err == nil {
			m.Path, m.NumFiles = dir, len(weights)
			if !yield(m) {
				return false
			}
		}
	}
	for _, first := range firstParts(ggufs) {
		m, err := readGGUFFile(filepath.Join(dir, first.name))
		if err != nil {
			continue
		}
		m.NumFiles = first.parts
		if !yield(m) {
			return false
		}
	}
	return true
}

// readConfigFile reads what Discover needs of a config.json.
func readConfigFile(path string) (m DiscoveredModel, err error) {
	f, err := openRegular(path)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return parseConfig(io.LimitReader(f, maxConfigBytes))
}

// openRegular opens nothing but a regular file: to open a FIFO would wait for
// somebody who writes to it.
func openRegular(path string) (*os.File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	return os.Open(path)
}

// parseConfig reads model_type and the quantisation, which MLX writes under
// "quantization" and the Transformers library under "quantization_config".
func parseConfig(r io.Reader) (DiscoveredModel, error) {
	type quant struct {
		Bits      int `json:"bits"`
		GroupSize int `json:"group_size"`
	}
	var c struct {
		ModelType  string `json:"model_type"`
		TextConfig struct {
			ModelType string `json:"model_type"`
		} `json:"text_config"`
		Quantization       quant `json:"quantization"`
		QuantizationConfig quant `json:"quantization_config"`
	}
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return DiscoveredModel{}, fmt.Errorf("config.json: %w", err)
	}
	m := DiscoveredModel{ModelType: c.ModelType}
	if m.ModelType == "" {
		m.ModelType = c.TextConfig.ModelType
	}
	q := c.Quantization
	if q.Bits == 0 {
		q = c.QuantizationConfig
	}
	m.QuantBits, m.QuantGroup = max(q.Bits, 0), max(q.GroupSize, 0)
	return m, nil
}

// ggufPart is a GGUF file, and the number of files of which it is the first.
type ggufPart struct {
	name  string
	parts int
}

// splitName matches the names that llama.cpp's gguf-split writes: PREFIX-00001-of-00003.gguf.
var splitName = regexp.MustCompile(`(?i)^(.*)-(\d{5})-of-(\d{5})\.gguf$`)

// firstParts folds the parts of split files into their first part. Later parts
// without their first are left out: they cannot be loaded.
func firstParts(names []string) []ggufPart {
	var out []ggufPart
	for _, name := range names {
		sub := splitName.FindStringSubmatch(name)
		if sub == nil {
			out = append(out, ggufPart{name, 1})
			continue
		}
		if no, err := strconv.Atoi(sub[2]); err != nil || no != 1 {
			continue
		}
		n := 0
		for _, other := range names {
			if o := splitName.FindStringSubmatch(other); o != nil && o[1] == sub[1] && o[3] == sub[3] {
				n++
			}
		}
		out = append(out, ggufPart{name, n})
	}
	slices.SortFunc(out, func(a, b ggufPart) int { return strings.Compare(a.name, b.name) })
	return out
}
