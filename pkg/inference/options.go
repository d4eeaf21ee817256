package inference

// GenerateConfig holds the options of one generation.
type GenerateConfig struct {
	// MaxTokens is the largest number of tokens to sample.
	MaxTokens int
	// Temperature 0 is greedy: the same prompt gives the same tokens.
	Temperature float32
	// TopK limits sampling to the K most likely tokens, 0 for no limit.
	TopK int
	// TopP limits sampling to the smallest set of tokens whose probabilities sum to P, 0 for no limit.
	TopP float32
	// StopTokens end the generation when one of them is sampled; it is not yielded.
	StopTokens []int32
	// RepeatPenalty above 1 makes repetition less likely; 0 and 1 switch it off.
	RepeatPenalty float32
	// ReturnLogits asks Classify for the logits.
	ReturnLogits bool
}

// GenerateOption changes one option of a generation.
type GenerateOption func(*GenerateConfig)

// DefaultGenerateConfig is 256 tokens at temperature 0.
func DefaultGenerateConfig() GenerateConfig {
	return GenerateConfig{MaxTokens: 256}
}

// ApplyGenerateOpts applies the options in order to the default. Nil options are skipped.
func ApplyGenerateOpts(opts []GenerateOption) GenerateConfig {
	cfg := DefaultGenerateConfig()
	for _, o := range opts {
		if o != nil {
			o(&cfg)
		}
	}
	return cfg
}

// WithMaxTokens sets GenerateConfig.MaxTokens.
func WithMaxTokens(n int) GenerateOption {
	return func(c *GenerateConfig) { c.MaxTokens = n }
}

// WithTemperature sets GenerateConfig.Temperature.
func WithTemperature(t float32) GenerateOption {
	return func(c *GenerateConfig) { c.Temperature = t }
}

// WithTopK sets GenerateConfig.TopK.
func WithTopK(k int) GenerateOption {
	return func(c *GenerateConfig) { c.TopK = k }
}

// WithTopP sets GenerateConfig.TopP.
func WithTopP(p float32) GenerateOption {
	return func(c *GenerateConfig) { c.TopP = p }
}

// WithStopTokens sets GenerateConfig.StopTokens; the last call wins.
func WithStopTokens(ids ...int32) GenerateOption {
	return func(c *GenerateConfig) { c.StopTokens = ids }
}

// WithRepeatPenalty sets GenerateConfig.RepeatPenalty.
func WithRepeatPenalty(p float32) GenerateOption {
	return func(c *GenerateConfig) { c.RepeatPenalty = p }
}

// WithLogits sets GenerateConfig.ReturnLogits.
func WithLogits() GenerateOption {
	return func(c *GenerateConfig) { c.ReturnLogits = true }
}

// LoadConfig holds the options of loading a model.
type LoadConfig struct {
	// Backend names the backend to use; empty takes the best one available.
	Backend string
	// ContextLen is the context length in tokens; 0 takes the model's own.
	ContextLen int
	// GPULayers is the number of layers to put on the GPU: -1 for all, 0 for none.
	GPULayers int
	// ParallelSlots is the number of sequences decoded together; 0 leaves it to the backend.
	ParallelSlots int
	// AdapterPath is a LoRA adapter to apply, empty for none.
	AdapterPath string
}

// LoadOption changes one option of loading a model.
type LoadOption func(*LoadConfig)

// ApplyLoadOpts applies the options in order to the default, which differs from
// the zero value in GPULayers alone (-1, all). Nil options are skipped.
func ApplyLoadOpts(opts []LoadOption) LoadConfig {
	cfg := LoadConfig{GPULayers: -1}
	for _, o := range opts {
		if o != nil {
			o(&cfg)
		}
	}
	return cfg
}

// WithBackend sets LoadConfig.Backend.
func WithBackend(name string) LoadOption {
	return func(c *LoadConfig) { c.Backend = name }
}

// WithContextLen sets LoadConfig.ContextLen.
func WithContextLen(n int) LoadOption {
	return func(c *LoadConfig) { c.ContextLen = n }
}

// WithGPULayers sets LoadConfig.GPULayers.
func WithGPULayers(n int) LoadOption {
	return func(c *LoadConfig) { c.GPULayers = n }
}

// WithParallelSlots sets LoadConfig.ParallelSlots.
func WithParallelSlots(n int) LoadOption {
	return func(c *LoadConfig) { c.ParallelSlots = n }
}

// WithAdapterPath sets LoadConfig.AdapterPath.
func WithAdapterPath(path string) LoadOption {
	return func(c *LoadConfig) { c.AdapterPath = path }
}
