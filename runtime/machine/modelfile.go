package machine

import (
	"errors"
	"fmt"
	"os"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// ErrModelFile reports that a path names nothing that can be loaded.
var ErrModelFile = errors.New("not a loadable model")

// FindModel returns the absolute path of the GGUF file that path names: the file
// itself, the only model in a directory, see [gguf.FindModel], or the model of the
// store that a reference such as hf:OWNER/REPO names, see [modelstore.Resolve].
func FindModel(path string) (string, error) {
	if path == "" {
		return absolute(path)
	}
	path, _, err := modelstore.Resolve(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	abs, err := absolute(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(abs)
	if err == nil && info.IsDir() {
		abs, err = gguf.FindModel(abs)
	}
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	return abs, nil
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
	f, err := openHeader(file, convertModel)
	if err != nil {
		return "", nil, err
	}
	if why := notModel(f.Role()); why != "" {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is %s", ErrModelFile, file, why)
	}
	return file, f, nil
}

// notModel returns what a file of this role is instead of a model, with the remedy;
// empty for a model.
func notModel(role string) string {
	switch role {
	case gguf.KindModel:
		return ""
	case gguf.KindProjector:
		return "a projector; load its model, and set this file as the projector (Settings.Projector, --mmproj)"
	case gguf.KindAdapter:
		return "an adapter; load its model, and set this file as an adapter (Settings.Adapters, --adapter)"
	case gguf.KindVocabulary:
		return "a vocabulary without weights, which generates nothing; use the model's own file"
	}
	return fmt.Sprintf("not a model but a %.80q", role)
}

// openHeader reads a GGUF header. Its errors are for a person who wants to load
// the file; converter is the program that converts such files to GGUF.
func openHeader(path, converter string) (*gguf.File, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrModelFile, withRemedy(err, converter))
	}
	return f, nil
}

// Programs of llama.cpp that write GGUF files.
const (
	convertModel   = "convert_hf_to_gguf.py"
	convertAdapter = "convert_lora_to_gguf.py"
)

// withRemedy adds what to do about a file that is no GGUF file, or not all of one.
func withRemedy(err error, converter string) error {
	var format *gguf.FormatError
	if !errors.As(err, &format) {
		return err
	}
	remedy := ""
	switch convert := "convert the original with llama.cpp's " + converter; {
	case errors.Is(err, gguf.ErrTruncated):
		remedy = "the file is not complete; download it again"
	case !errors.Is(err, gguf.ErrNotGGUF):
		return err
	default:
		switch format.Content {
		case gguf.ContentEmpty, gguf.ContentZeros:
			remedy = "the download or the copy failed; do it again"
		case gguf.ContentHTML, gguf.ContentJSON:
			remedy = "the server sent it instead of the model; download the file itself (on Hugging Face resolve/main, not blob/main), logged in if the model needs it"
		case gguf.ContentLFSPointer:
			remedy = "run git lfs pull where you cloned the repository, or download the file itself"
		case gguf.ContentCompressed, gguf.ContentTar:
			remedy = "unpack it, and use the .gguf file in it"
		case gguf.ContentOldGGML:
			remedy = "download the model as GGUF, or convert the original again"
		case gguf.ContentDirectory:
			remedy = "name the .gguf file in it"
			if converter == convertAdapter {
				remedy += ", or " + convert
			}
		case gguf.ContentSpecial:
			remedy = "name a file"
		case gguf.ContentSafetensors, gguf.ContentZip, gguf.ContentPickle:
			remedy = convert
		case gguf.ContentUnknown:
			remedy = "use a .gguf file, or " + convert
		}
	}
	return fmt.Errorf("%w; %s", err, remedy)
}

// openProjector reads the header of a projector and returns its absolute path.
func openProjector(path string) (string, *gguf.File, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", nil, err
	}
	f, err := openHeader(abs, convertModel)
	if err != nil {
		return "", nil, fmt.Errorf("the projector: %w", err)
	}
	if f.Role() != gguf.KindProjector {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is a %.80q of the architecture %.80q, not a projector; projectors are often named mmproj-*.gguf",
			ErrModelFile, abs, f.Role(), f.Architecture())
	}
	return abs, f, nil
}

// openAdapter reads the header of a LoRA adapter for a model of an architecture, of any
// if it is empty, and returns its absolute path. llama.cpp rejects an adapter of another architecture
// (llama-adapter.cpp).
func openAdapter(path, architecture string) (string, *gguf.File, error) {
	abs, err := absolute(path)
	if err != nil {
		return "", nil, err
	}
	f, err := openHeader(abs, convertAdapter)
	if err != nil {
		return "", nil, err
	}
	if kind := f.Role(); kind != gguf.KindAdapter {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is a %.80q, not an adapter", ErrModelFile, abs, kind)
	}
	if own := f.Architecture(); architecture != "" && own != architecture {
		_ = f.Close()
		return "", nil, fmt.Errorf("%w: %s is an adapter for models of the architecture %.80q, and the model's is %.80q", ErrModelFile, abs, own, architecture)
	}
	return abs, f, nil
}
