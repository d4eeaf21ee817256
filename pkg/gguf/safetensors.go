package gguf

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

const (
	// configName is the file that describes a model of the transformers library.
	configName = "config.json"
	// maxConfig limits it, in bytes; real ones are a few KiB.
	maxConfig = 4 << 20
)

// describeSafetensors describes a directory in the layout of the transformers
// library, with the names of its weight files.
func describeSafetensors(dir string, weights []string) Found {
	out := Found{Path: dir, Format: "safetensors", Kind: KindModel, Name: filepath.Base(dir), Files: len(weights)}
	for _, name := range weights {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil {
			out.Bytes += info.Size()
		}
	}
	path := filepath.Join(dir, configName)
	f, err := openRegular(path)
	if err != nil {
		out.Err = err
		return out
	}
	defer func() { _ = f.Close() }()
	if err := out.readConfig(io.LimitReader(f, maxConfig)); err != nil {
		out.Err = fmt.Errorf("%s: %w", path, err)
	}
	return out
}

// readConfig sets what config.json says. MLX writes the quantisation under
// "quantization", and the transformers library under "quantization_config".
func (f *Found) readConfig(r io.Reader) error {
	type quant struct {
		Bits      int `json:"bits"`
		GroupSize int `json:"group_size"`
	}
	type text struct {
		ModelType string `json:"model_type"`
		Context   int    `json:"max_position_embeddings"`
		DType     string `json:"torch_dtype"`
	}
	var c struct {
		text
		TextConfig         text  `json:"text_config"` // of models that also read images
		Quantization       quant `json:"quantization"`
		QuantizationConfig quant `json:"quantization_config"`
	}
	if err := json.NewDecoder(r).Decode(&c); err != nil {
		return err
	}
	f.Architecture, f.ContextLength, f.Quantisation = c.ModelType, max(c.Context, 0), c.DType
	if f.Architecture == "" {
		f.Architecture = c.TextConfig.ModelType
	}
	if f.ContextLength == 0 {
		f.ContextLength = max(c.TextConfig.Context, 0)
	}
	q := c.Quantization
	if q.Bits == 0 {
		q = c.QuantizationConfig
	}
	if f.QuantBits, f.QuantGroup = max(q.Bits, 0), max(q.GroupSize, 0); f.QuantBits > 0 {
		f.Quantisation = strconv.Itoa(f.QuantBits) + "bit"
	}
	return nil
}
