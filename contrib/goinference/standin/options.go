package inference

// GenerateConfig has the options of a generation.
type GenerateConfig struct {
	MaxTokens     int
	Temperature   float32
	TopK          int
	TopP          float32
	StopTokens    []int32
	RepeatPenalty float32
	ReturnLogits  bool
}

// LoadConfig has the options of loading.
type LoadConfig struct {
	Backend       string
	ContextLen    int
	GPULayers     int
	ParallelSlots int
	AdapterPath   string
}

// GenerateOption changes one field of GenerateConfig.
type GenerateOption func(*GenerateConfig)

// LoadOption changes one field of LoadConfig.
type LoadOption func(*LoadConfig)

// DefaultGenerateConfig returns the defaults: 256 tokens, greedy.
func DefaultGenerateConfig() GenerateConfig { return GenerateConfig{MaxTokens: 256} }

// ApplyGenerateOpts applies options to the defaults and skips nil.
func ApplyGenerateOpts(opts []GenerateOption) GenerateConfig {
	cfg := DefaultGenerateConfig()
	for _, o := range opts {
		if o != nil {
			o(&cfg)
		}
	}
	return cfg
}

// ApplyLoadOpts applies options to the defaults and skips nil.
func ApplyLoadOpts(opts []LoadOption) LoadConfig {
	cfg := LoadConfig{GPULayers: -1}
	for _, o := range opts {
		if o != nil {
			o(&cfg)
		}
	}
	return cfg
}

// WithMaxTokens sets MaxTokens.
func WithMaxTokens(n int) GenerateOption { return func(c *GenerateConfig) { c.MaxTokens = n } }

// WithTemperature sets Temperature.
func WithTemperature(t float32) GenerateOption { return func(c *GenerateConfig) { c.Temperature = t } }

// WithTopK sets TopK.
func WithTopK(k int) GenerateOption { return func(c *GenerateConfig) { c.TopK = k } }

// WithTopP sets TopP.
func WithTopP(p float32) GenerateOption { return func(c *GenerateConfig) { c.TopP = p } }

// WithStopTokens sets StopTokens.
func WithStopTokens(ids ...int32) GenerateOption {
	return func(c *GenerateConfig) { c.StopTokens = ids }
}

// WithRepeatPenalty sets RepeatPenalty.
func WithRepeatPenalty(p float32) GenerateOption {
	return func(c *GenerateConfig) { c.RepeatPenalty = p }
}

// WithLogits sets ReturnLogits.
func WithLogits() GenerateOption { return func(c *GenerateConfig) { c.ReturnLogits = true } }

// WithBackend sets Backend.
func WithBackend(name string) LoadOption { return func(c *LoadConfig) { c.Backend = name } }

// WithContextLen sets ContextLen.
func WithContextLen(n int) LoadOption { return func(c *LoadConfig) { c.ContextLen = n } }

// WithGPULayers sets GPULayers.
func WithGPULayers(n int) LoadOption { return func(c *LoadConfig) { c.GPULayers = n } }

// WithParallelSlots sets ParallelSlots.
func WithParallelSlots(n int) LoadOption { return func(c *LoadConfig) { c.ParallelSlots = n } }

// WithAdapterPath sets AdapterPath.
func WithAdapterPath(path string) LoadOption { return func(c *LoadConfig) { c.AdapterPath = path } }
