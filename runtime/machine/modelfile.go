package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// ErrModelFile reports that a path names nothing that can be loaded.
var ErrModelFile = errors.New("not a loadable model")

// FindModel returns the absolute path of the GGUF file that path names: the file
// itself, or the only model in a directory. Of a split model it returns the first
// part.
func FindModel(path string) (string, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	if !info.IsDir() {
		return abs, nil
	}
	entries, err := os.ReadDir(abs)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	var found []string
	safetensors := false
	for _, e := range entries {
		name := e.Name()
		safetensors = safetensors || strings.HasSuffix(name, ".safetensors")
		if e.IsDir() || !strings.HasSuffix(name, ".gguf") || strings.HasPrefix(name, "mmproj") {
			continue
		}
		if _, no, _, split := gguf.SplitName(name); split && no != 1 {
			continue
		}
		found = append(found, name)
	}
	switch {
	case len(found) == 1:
		return filepath.Join(abs, found[0]), nil
	case len(found) > 1:
		slices.Sort(found)
		return "", fmt.Errorf("%w: %s contains several models (%s); name one of them", ErrModelFile, abs, strings.Join(found, ", "))
	case safetensors:
		return "", fmt.Errorf("%w: %s contains safetensors, which llama.cpp does not load; convert it with llama.cpp's convert_hf_to_gguf.py", ErrModelFile, abs)
	}
	return "", fmt.Errorf("%w: %s contains no .gguf file", ErrModelFile, abs)
}

// OpenModel reads the header of the model at path, a GGUF file or a directory with
// one model, and returns the absolute path of the file. It rejects projectors,
// adapters and files without weights. Its error is a [plan.OptionError] that wraps [ErrModelFile].
func OpenModel(path string) (string, *gguf.File, error) {
	file, f, err := openModel(path)
	if err != nil {
		return "", nil, &plan.OptionError{Option: "Model", Err: err}
	}
	return file, f, nil
}

func openModel(path string) (string, *gguf.File, error) {
	file, err := FindModel(path)
	if err != nil {
		return "", nil, err
	}
	f, err := openHeader(file)
	if err != nil {
		return "", nil, err
	}
	if why := notModel(f); why != "" {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is %s", ErrModelFile, file, why)
	}
	return file, f, nil
}

// notModel returns what a file is that is no model, with the remedy; empty for a
// model.
func notModel(f *gguf.File) string {
	switch {
	case isProjector(f):
		return "a projector; load its model, and set this file as the projector (Settings.Projector, --mmproj)"
	case f.Kind() == "adapter":
		return "an adapter; load its model, and set this file as an adapter (Settings.Adapters, --adapter)"
	case len(f.Tensors()) == 0:
		return "a vocabulary without weights, which generates nothing; use the model's own file"
	}
	return ""
}

// openHeader reads a GGUF header. Its errors are for a person who wants to load
// the file.
func openHeader(path string) (*gguf.File, error) {
	f, err := gguf.Open(path)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, gguf.ErrNotGGUF) {
		return nil, fmt.Errorf("%w: %w; use a .gguf file, or convert the model with llama.cpp's convert_hf_to_gguf.py", ErrModelFile, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrModelFile, err)
}

// openProjector reads the header of a projector and returns its absolute path.
func openProjector(path string) (string, *gguf.File, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", nil, err
	}
	f, err := openHeader(abs)
	if err != nil {
		return "", nil, err
	}
	if !isProjector(f) {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is a %.80q of the architecture %.80q, not a projector; projectors are often named mmproj-*.gguf",
			ErrModelFile, abs, f.Kind(), f.Architecture())
	}
	return abs, f, nil
}

// isProjector also recognises projectors older than general.type.
func isProjector(f *gguf.File) bool { return f.Kind() == "mmproj" || f.Architecture() == "clip" }

// openAdapter reads the header of a LoRA adapter and returns its absolute path.
func openAdapter(path string) (string, *gguf.File, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", nil, err
	}
	f, err := gguf.Open(abs)
	if err != nil {
		if errors.Is(err, gguf.ErrNotGGUF) {
			err = fmt.Errorf("%w; convert the adapter with llama.cpp's convert_lora_to_gguf.py", err)
		}
		return "", nil, fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	if kind := f.Kind(); kind != "adapter" {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is a %.80q, not an adapter", ErrModelFile, abs, kind)
	}
	return abs, f, nil
}
