package inference

// ThinkingMode says what becomes of a model's reasoning in its output.
type ThinkingMode string

// The modes.
const (
	ThinkingShow    ThinkingMode = "show"
	ThinkingHide    ThinkingMode = "hide"
	ThinkingCapture ThinkingMode = "capture"
)

// ThinkingConfig is the handling of reasoning.
type ThinkingConfig struct{ Mode ThinkingMode }

// GenerateConfig holds the options of a generation.
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

// LoadConfig holds the options of loading.
type LoadConfig struct {
	Backend       string
	ContextLen    int
	GPULayers     int
	ParallelSlots int
	AdapterPath   string
}

// GenerateOption changes one member of GenerateConfig.
type GenerateOption func(*GenerateConfig)

// LoadOption changes one member of LoadConfig.
type LoadOption func(*LoadConfig)

// ApplyGenerateOpts folds options into the default, which is greedy and has no
// bound of its own on the tokens: MaxTokens 0 means what the context holds.
func ApplyGenerateOpts(opts []GenerateOption) GenerateConfig {
	cfg := GenerateConfig{RepeatPenalty: 1}
	for _, o := range opts {
		if o != nil {
			o(&cfg)
		}
	}
	return cfg
}

// ApplyLoadOpts folds options into the default.
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
