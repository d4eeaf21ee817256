package selftest

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// SuggestedModel is the reference of a small model for the test.
const SuggestedModel = "hf:Qwen/Qwen3-0.6B-GGUF"

// SmallestModel returns the name of the smallest model of the store that generates
// text. The error says what to pull.
func SmallestModel() (string, error) {
	none := fmt.Errorf(`no model was named, and the store has none; run "go-rocm pull %s", or name a GGUF file`, SuggestedModel)
	s, err := modelstore.OpenExisting("")
	if errors.Is(err, os.ErrNotExist) {
		return "", none
	}
	if err != nil {
		return "", err
	}
	all, err := s.List()
	if err = errors.Join(err, s.Close()); err != nil {
		return "", err
	}
	slices.SortFunc(all, func(a, b modelstore.Record) int { return int(min(1, max(-1, a.Bytes()-b.Bytes()))) })
	for _, r := range all {
		_, f, err := machine.OpenModel(r.Name)
		if err != nil {
			continue
		}
		_, embeds := f.ArchUint("pooling_type") // models for embeddings have one
		_ = f.Close()
		if !embeds {
			return r.Name, nil
		}
	}
	return "", none
}
