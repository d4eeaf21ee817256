package machine

import (
	"cmp"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// FindProjector returns the path of the multimodal projector that belongs to the model
// at path, or to the model of the store that a reference names; empty if there is none.
// For a model of the store its record decides. Otherwise it is a file in the model's
// directory
//
//  1. whose name contains "mmproj", as llama.cpp's router requires (common/preset.cpp),
//  2. whose output is as wide as the model's embeddings, if its header states the width,
//  3. and which is named like the model, apart from quantisations; or has any name, if
//     the directory contains no other model.
//
// Of several, one of 16 bits is preferred, which all backends compute.
func FindProjector(path string) string {
	file, record, err := modelstore.Resolve(path)
	if err != nil {
		return "" // loading the model says why
	}
	if record != nil {
		projector, ok := record.Projector()
		if !ok {
			return ""
		}
		return filepath.Join(filepath.Dir(file), projector.Name)
	}
	if file, err = FindModel(path); err != nil {
		return ""
	}
	dir := filepath.Dir(file)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var projectors []string
	alone := true
	for _, e := range entries {
		switch name := e.Name(); {
		case !strings.EqualFold(filepath.Ext(name), ".gguf"):
		case strings.Contains(strings.ToLower(name), "mmproj"):
			projectors = append(projectors, name)
		case !sameModel(name, filepath.Base(file)):
			alone = false
		}
	}
	projectors = slices.DeleteFunc(projectors, func(name string) bool {
		return !alone && !sameModel(name, filepath.Base(file)) || !projectsTo(filepath.Join(dir, name), file)
	})
	if len(projectors) == 0 {
		return ""
	}
	slices.SortStableFunc(projectors, func(a, b string) int {
		return cmp.Or(-compareBool(sameModel(a, filepath.Base(file)), sameModel(b, filepath.Base(file))), cmp.Compare(precision(a), precision(b)))
	})
	return filepath.Join(dir, projectors[0])
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

var (
	// quantWord matches the names of llama.cpp's file types (llama-quant.cpp), whose
	// words are joined by underscores.
	quantWord = regexp.MustCompile(`^(?:ud|i?q\d\w*|tq\d\w*|mxfp4\w*|nvfp4|bf16|fp?16|fp?32)$`)
	// separators are between the words of a file's name.
	separators = regexp.MustCompile(`[-. ]+`)
)

// sameModel reports whether two files are named like the same model: whether the names
// have the same words besides quantisations and "mmproj".
func sameModel(a, b string) bool { return slices.Equal(nameWords(a), nameWords(b)) }

func nameWords(file string) []string {
	name := strings.TrimSuffix(strings.ToLower(file), ".gguf")
	if prefix, _, _, split := gguf.SplitName(file); split {
		name = strings.ToLower(prefix)
	}
	name = strings.ReplaceAll(name, "mmproj", "-")
	var words []string
	for _, word := range separators.Split(name, -1) {
		if word = strings.Trim(word, "_"); word != "" && !quantWord.MatchString(word) {
			words = append(words, word)
		}
	}
	return words
}

// precision orders the precisions that a projector's name states.
func precision(name string) int {
	name = strings.ToUpper(name)
	for i, quant := range []string{"BF16", "F16", "Q8_0", "F32"} {
		if strings.Contains(name, quant) {
			return i
		}
	}
	return len(name)
}

// projectsTo reports whether the file is a projector, and its output as wide as the
// embeddings of the model.
func projectsTo(projector, model string) bool {
	p, err := gguf.Open(projector)
	if err != nil {
		return false
	}
	defer func() { _ = p.Close() }()
	m, err := gguf.Open(model)
	if err != nil {
		return false
	}
	defer func() { _ = m.Close() }()
	if p.Role() != gguf.KindProjector {
		return false
	}
	for _, key := range []string{"vision.projection_dim", "audio.projection_dim"} {
		if width, ok := p.ArchUint(key); ok && width > 0 && width != uint64(max(m.EmbeddingLength(), 0)) {
			return false
		}
	}
	return true
}
