package gguf

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// Found is a model that Discover found.
type Found struct {
	Path          string `json:"path"`   // of the file, or of the first part, or of the directory
	Format        string `json:"format"` // "gguf" or "safetensors"
	Kind          string `json:"kind"`   // "model", "adapter", "mmproj", …
	Name          string `json:"name"`
	Architecture  string `json:"architecture"`
	SizeClass     string `json:"size_class"` // "8B", from the file or from the parameters
	Quantisation  string `json:"quantisation"`
	Parameters    uint64 `json:"parameters"`
	ContextLength int    `json:"context_length"`
	Bytes         int64  `json:"bytes"`
	Files         int    `json:"files"`
	Err           error  `json:"-"` // the file looks like a model and cannot be read
}

// maxConfig limits the size of a config.json, in bytes.
const maxConfig = 1 << 20

// Discover walks the directory tree below root and yields each model: GGUF files
// (a split model once, by its first part) and directories with config.json and
// safetensors files. A model that cannot be read is yielded with Err; directories
// that cannot be listed are yielded the same way. Symbolic links to files are
// followed, those to directories are not.
func Discover(ctx context.Context, root string) iter.Seq[Found] {
	return func(yield func(Found) bool) {
		err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return fs.SkipAll
			}
			if err != nil {
				return stop(yield(Found{Path: p, Err: err}))
			}
			if e.IsDir() {
				if f, ok := safetensors(p); ok {
					return stop(yield(f))
				}
				return nil
			}
			if f, ok := candidate(p); ok {
				return stop(yield(f))
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.SkipAll) {
			yield(Found{Path: root, Err: err})
		}
	}
}

func stop(goOn bool) error {
	if goOn {
		return nil
	}
	return fs.SkipAll
}

// candidate reads a file that is called .gguf; ok is false for others and for
// parts after the first.
func candidate(p string) (Found, bool) {
	if !strings.EqualFold(path.Ext(p), ".gguf") {
		return Found{}, false
	}
	if _, no, _, ok := SplitName(p); ok && no > 1 {
		return Found{}, false
	}
	return Describe(p), true
}

// Describe returns a description of the GGUF model at path. Err is set if the file
// cannot be read.
func Describe(path string) Found {
	out := Found{Path: path, Format: "gguf"}
	f, err := Open(path)
	if err != nil {
		out.Err = err
		return out
	}
	out.Kind, out.Name, out.Architecture = f.Kind(), f.Name(), f.Architecture()
	out.Quantisation, out.Parameters = f.Quantisation(), f.Parameters()
	out.ContextLength, out.Bytes, out.Files = f.ContextLength(), f.Size(), f.Parts()
	if out.SizeClass = f.SizeLabel(); out.SizeClass == "" {
		out.SizeClass = sizeClass(out.Parameters)
	}
	if len(f.Tensors()) == 0 {
		out.Kind = "vocabulary"
	}
	out.Err = f.Close()
	return out
}

// sizeClass formats a number of parameters: "135M", "8.2B".
func sizeClass(n uint64) string {
	format := func(v float64, unit string) string {
		s := strconv.FormatFloat(v, 'f', 1, 64)
		return strings.TrimSuffix(s, ".0") + unit
	}
	switch {
	case n == 0:
		return ""
	case n >= 1e9:
		return format(float64(n)/1e9, "B")
	case n >= 1e6:
		return strconv.FormatUint((n+5e5)/1e6, 10) + "M"
	case n >= 1e3:
		return strconv.FormatUint((n+500)/1000, 10) + "K"
	default:
		return strconv.FormatUint(n, 10)
	}
}

// safetensors describes a directory in the layout of the transformers library.
func safetensors(dir string) (Found, bool) {
	files, err := filepath.Glob(filepath.Join(escape(dir), "*.safetensors"))
	if err != nil || len(files) == 0 {
		return Found{}, false
	}
	out := Found{Path: dir, Format: "safetensors", Kind: "model", Name: filepath.Base(dir), Files: len(files)}
	for _, p := range files {
		if info, err := os.Stat(p); err == nil {
			out.Bytes += info.Size()
		}
	}
	config := filepath.Join(dir, "config.json")
	b, err := readLimited(config)
	if errors.Is(err, fs.ErrNotExist) {
		return Found{}, false
	}
	var c struct {
		ModelType string `json:"model_type"`
		Context   int    `json:"max_position_embeddings"`
		DType     string `json:"torch_dtype"`
		Quant     *struct {
			Bits int `json:"bits"`
		} `json:"quantization_config"`
	}
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		out.Err = fmt.Errorf("%s: %w", config, err)
		return out, true
	}
	out.Architecture, out.ContextLength, out.Quantisation = c.ModelType, c.Context, c.DType
	if c.Quant != nil && c.Quant.Bits > 0 {
		out.Quantisation = strconv.Itoa(c.Quant.Bits) + "bit"
	}
	return out, true
}

// escape protects a directory's name from being read as a pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

func readLimited(p string) ([]byte, error) {
	f, err := openRegular(p)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxConfig))
	return b, errors.Join(err, f.Close())
}
