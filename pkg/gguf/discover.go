package gguf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Found is a model on disk, or another file that belongs to models. It was looked
// at, not loaded.
type Found struct {
	Path          string `json:"path"`   // of the file, or of the first part, or of the directory
	Format        string `json:"format"` // "gguf" or "safetensors"
	Kind          string `json:"kind"`   // "model", "adapter", "mmproj", "vocabulary", "imatrix", …
	Name          string `json:"name"`
	Architecture  string `json:"architecture"`
	SizeClass     string `json:"size_class"` // "8B", from the file or from the parameters
	Quantisation  string `json:"quantisation"`
	QuantBits     int    `json:"quant_bits"`  // bits of a weight without scales, 0 when unknown
	QuantGroup    int    `json:"quant_group"` // weights that share a scale, 0 for none
	Parameters    uint64 `json:"parameters"`
	ContextLength int    `json:"context_length"`
	Bytes         int64  `json:"bytes"`
	Files         int    `json:"files"`
	Err           error  `json:"-"` // the file looks like a model and cannot be read
}

// Kinds of Found that are no models.
const (
	KindModel      = "model"
	KindAdapter    = "adapter"    // of LoRA, for a model
	KindProjector  = "mmproj"     // for images or audio, of a model
	KindVocabulary = "vocabulary" // a file without weights
)

// ReadDir returns what the directory dir holds: its GGUF files (a split model once,
// by its first part), and dir itself if it holds config.json and safetensors files.
// What a file is, its metadata says; names do not matter besides the ending .gguf
// and the numbers of a split model's parts. A file that cannot be read is returned
// with Err. The order is dir itself, then the files by name. The error is that of
// listing the directory.
func ReadDir(dir string) ([]Found, error) {
	entries, err := readEntries(dir)
	if err != nil {
		return nil, err
	}
	found, _ := describeEntries(dir, entries)
	return found, nil
}

// readEntries is os.ReadDir, which would block at a FIFO.
func readEntries(dir string) ([]fs.DirEntry, error) {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = &fs.PathError{Op: "open", Path: dir, Err: errors.New("not a directory")}
	}
	if err != nil {
		return nil, err
	}
	return os.ReadDir(dir)
}

// describeEntries also returns the names of safetensors files, with which a
// directory without config.json is no model.
func describeEntries(dir string, entries []fs.DirEntry) (out []Found, weights []string) {
	var names []string
	config := false
	for _, e := range entries { // sorted by name
		switch ext := strings.ToLower(filepath.Ext(e.Name())); {
		case isDir(dir, e):
		case ext == ".gguf":
			names = append(names, e.Name())
		case ext == ".safetensors":
			weights = append(weights, e.Name())
		case e.Name() == configName:
			config = true
		}
	}
	if config && len(weights) > 0 {
		out = append(out, describeSafetensors(dir, weights))
	}
	for _, name := range names {
		path := filepath.Join(dir, name)
		prefix, no, count, split := SplitName(name)
		if !split || no == 1 {
			out = append(out, Describe(path))
			continue
		}
		first := fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, 1, count)
		earlier := func(other string) bool {
			p, n, c, ok := SplitName(other)
			return ok && p == prefix && c == count && n < no
		}
		if !slices.ContainsFunc(names, earlier) {
			out = append(out, Found{Path: path, Format: "gguf", Err: fmt.Errorf("%s: %w: the first part, %s, is not there", path, ErrSplit, first)})
		}
	}
	return out, weights
}

// isDir reports whether an entry is a directory, or a symbolic link to one.
func isDir(dir string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(dir, e.Name()))
	return err == nil && info.IsDir()
}

// Discover yields what root and the directories below it hold, as [ReadDir]
// describes it, by name. Directories that cannot be listed are yielded with Err. Symbolic
// links to files are followed, and so are links to directories: root itself, and
// those in root, as caches of models have them, but none below, so that a link to a
// directory above ends.
func Discover(ctx context.Context, root string) iter.Seq[Found] {
	return func(yield func(Found) bool) {
		discover(ctx, root, true, yield)
	}
}

// discover walks dir and reports whether to go on.
func discover(ctx context.Context, dir string, follow bool, yield func(Found) bool) bool {
	if ctx.Err() != nil {
		return false
	}
	entries, err := readEntries(dir)
	if err != nil {
		return yield(Found{Path: dir, Err: err})
	}
	found, _ := describeEntries(dir, entries)
	emit := func() bool {
		f := found[0]
		found = found[1:]
		return ctx.Err() == nil && yield(f)
	}
	if len(found) > 0 && found[0].Path == dir && !emit() {
		return false
	}
	for _, e := range entries { // by name, as found is
		path := filepath.Join(dir, e.Name())
		switch {
		case len(found) > 0 && found[0].Path == path:
			if !emit() {
				return false
			}
		case e.IsDir() || follow && isDir(dir, e):
			if !discover(ctx, path, false, yield) {
				return false
			}
		}
	}
	return true
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
	out.Kind, out.Name, out.Architecture = f.Role(), f.Name(), f.Architecture()
	out.Quantisation, out.Parameters = f.Quantisation(), f.Parameters()
	out.QuantBits, out.QuantGroup = f.QuantBits(), f.QuantGroup()
	out.ContextLength, out.Bytes, out.Files = f.ContextLength(), f.Size(), f.Parts()
	if out.SizeClass = f.SizeLabel(); out.SizeClass == "" {
		out.SizeClass = sizeClass(out.Parameters)
	}
	out.Err = f.Close()
	return out
}

// Role is what the file is for: Kind, except that projectors older than
// general.type are KindProjector too, and files without tensors KindVocabulary.
func (f *File) Role() string {
	switch {
	case f.Architecture() == "clip":
		return KindProjector
	case len(f.tensors) == 0 && f.Kind() == KindModel:
		return KindVocabulary
	}
	return f.Kind()
}

// FindModel returns the path of the one model in the directory dir. Projectors,
// adapters and other files beside it do not count, and neither does a file that
// cannot be read beside a model that can.
func FindModel(dir string) (string, error) {
	entries, err := readEntries(dir)
	if err != nil {
		return "", err
	}
	found, weights := describeEntries(dir, entries)
	var models, broken, others []string
	for _, f := range found {
		switch name := filepath.Base(f.Path); {
		case f.Format == "safetensors": // its weights are among weights
		case f.Err != nil:
			broken = append(broken, name)
		case f.Kind == KindModel:
			models = append(models, name)
		default:
			others = append(others, fmt.Sprintf("%s, a file of kind %.40q", name, f.Kind))
		}
	}
	if len(models) == 0 && len(broken) == 1 {
		models = broken // opening it says why
	}
	switch {
	case len(models) == 1:
		return filepath.Join(dir, models[0]), nil
	case len(models) > 1:
		return "", fmt.Errorf("%s contains several models (%s); name one of them", dir, strings.Join(models, ", "))
	case len(broken) > 0:
		return "", fmt.Errorf("%s contains no model that can be read (%s); name one of them to learn why", dir, strings.Join(broken, ", "))
	case len(weights) > 0:
		return "", fmt.Errorf("%s contains safetensors, which llama.cpp does not load; convert it with llama.cpp's convert_hf_to_gguf.py", dir)
	case len(others) > 0:
		return "", fmt.Errorf("%s contains no model, only %s", dir, strings.Join(others, ", "))
	}
	return "", fmt.Errorf("%s contains no .gguf file", dir)
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
