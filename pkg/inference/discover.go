package inference

import (
	"iter"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
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

// Discover yields the models in baseDir itself and in its direct children, which
// may be links: a directory with config.json and *.safetensors is one model, and so
// is every GGUF file (the parts of a split file count as one), as [gguf.ReadDir]
// describes them. Projectors, adapters and files that cannot be read are left out.
// The order is the directory itself, then its children by name.
func Discover(baseDir string) iter.Seq[DiscoveredModel] {
	return func(yield func(DiscoveredModel) bool) {
		base, err := filepath.Abs(baseDir)
		if err != nil {
			return
		}
		found, err := gguf.ReadDir(base)
		if err != nil || !yieldModels(found, yield) {
			return
		}
		entries, err := os.ReadDir(base)
		if err != nil {
			return
		}
		for _, e := range entries {
			// A file is no directory, and ReadDir fails.
			if found, err := gguf.ReadDir(filepath.Join(base, e.Name())); err == nil && !yieldModels(found, yield) {
				return
			}
		}
	}
}

// yieldModels yields the models in found and reports whether to go on.
func yieldModels(found []gguf.Found, yield func(DiscoveredModel) bool) bool {
	for _, f := range found {
		if f.Err != nil || f.Kind != gguf.KindModel {
			continue
		}
		m := DiscoveredModel{Path: f.Path, ModelType: f.Architecture, QuantBits: f.QuantBits, QuantGroup: f.QuantGroup, NumFiles: f.Files}
		if !yield(m) {
			return false
		}
	}
	return true
}
