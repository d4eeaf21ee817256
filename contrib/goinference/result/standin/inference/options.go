package inference

// ThinkingMode determines whether a model's reasoning is part of its output.
type ThinkingMode string

// The values of a ThinkingMode.
const (
	ThinkingShow    ThinkingMode = "show"
	ThinkingHide    ThinkingMode = "hide"
	ThinkingCapture ThinkingMode = "capture"
)

// ThinkingConfig has the options for reasoning.
type ThinkingConfig struct{ Mode ThinkingMode }

// GenerateConfig has the options of a generation.
type GenerateConfig struct {
	MaxTokens           int
	Temperature         float32
	TopK                int
	TopP                float32
	MinP                float32
	Seed                uint64
	SeedSet             bool
	StopTokens          []int32
	SuppressTokens      []int32
	MinTokensBeforeStop int
	RepeatPenalty       float32
	ReturnLogits        bool
	EnableThinking      *bool
	ThinkingBudget      int
	Thinking            ThinkingConfig
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

// ApplyGenerateOpts applies options to the defaults: greedy, and MaxTokens 0, which means
// that only the context limits the tokens.
func ApplyGenerateOpts(opts []GenerateOption) GenerateConfig {
	cfg := GenerateConfig{RepeatPenalty: 1}
	for _, o := range opts {
		if o != nil {
			o(&cfg)
		}
	}
	return cfg
}

// ApplyLoadOpts applies options to the defaults.
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

// WithContextLen sets ContextLen.
func WithContextLen(n int) LoadOption { return func(c *LoadConfig) { c.ContextLen = n } }
