package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
)

// ErrModelFile reports that a path names nothing that can be loaded.
var ErrModelFile = errors.New("not a loadable model")

// FindModel returns the absolute path of the GGUF file that path names: the file
// itself, or the only model in a directory. Of a split model it returns the first
// part.
func FindModel(path string) (string, error) {
	if path == "" { // filepath.Abs would return the current directory
		return "", fmt.Errorf("%w: the path is empty", ErrModelFile)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("model %s: %w", path, err)
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

// OpenModel reads the header of a model. It rejects projectors.
func OpenModel(path string) (*gguf.File, error) {
	f, err := openHeader(path)
	if err != nil {
		return nil, err
	}
	if isProjector(f) {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s is a projector; load its model, and set this file as the projector (Settings.Projector, --mmproj)", ErrModelFile, path)
	}
	return f, nil
}

// openHeader reads a GGUF header. Its errors are for a person who wants to load
// the file.
func openHeader(path string) (*gguf.File, error) {
	f, err := gguf.Open(path)
	if err == nil {
		return f, nil
	}
	if errors.Is(err, gguf.ErrNotGGUF) {
		return nil, fmt.Errorf("%w: %s: %w; use a .gguf file, or convert the model with llama.cpp's convert_hf_to_gguf.py", ErrModelFile, path, err)
	}
	return nil, fmt.Errorf("%w: %s: %w", ErrModelFile, path, err)
}

// openProjector reads the header of a projector and returns its absolute path.
func openProjector(path string) (string, *gguf.File, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", nil, fmt.Errorf("projector %s: %w", path, err)
	}
	if info, err := os.Stat(abs); err != nil || info.IsDir() {
		if err == nil {
			err = errors.New("is a directory; name the file")
		}
		return "", nil, fmt.Errorf("%w: the projector %s: %w", ErrModelFile, abs, err)
	}
	f, err := openHeader(abs)
	if err != nil {
		return "", nil, fmt.Errorf("projector: %w", err)
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

// openAdapter reads the header of a LoRA adapter.
func openAdapter(path string) (*gguf.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%w: the adapter: %w", ErrModelFile, err)
	}
	const convert = "convert it with llama.cpp's convert_lora_to_gguf.py"
	if info.IsDir() || strings.HasSuffix(path, ".safetensors") || strings.HasSuffix(path, ".bin") {
		return nil, fmt.Errorf("%w: the adapter %s is not GGUF; %s", ErrModelFile, path, convert)
	}
	f, err := gguf.Open(path)
	if errors.Is(err, gguf.ErrNotGGUF) {
		return nil, fmt.Errorf("%w: the adapter %s: %w; %s", ErrModelFile, path, err, convert)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the adapter %s: %w", ErrModelFile, path, err)
	}
	if kind := f.Kind(); kind != "adapter" {
		_ = f.Close()
		return nil, fmt.Errorf("%w: %s is a %.80q, not an adapter", ErrModelFile, path, kind)
	}
	return f, nil
}
