package modelbench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/host"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// Options say what is measured. All fields but Settings and Memory are required.
type Options struct {
	Path     string        // of the model
	Settings rocm.Settings // with which the model is loaded
	Depths   []int         // tokens in the cache before the prompt
	Prompt   int           // tokens of the prompt that is measured
	Answer   int           // tokens of the answer that is measured
	Rounds   int           // measurements of each, after one that does not count
	// Progress is called after each request with the share that is done, and with
	// the settings that are measured.
	Progress func(done float64, s speed.Settings)
	// Memory returns the free main memory and the free memory of the fullest GPU in
	// use, in bytes; nil: the kernel's figures.
	Memory func(devices []gpu.Device) (hostFree, gpuFree uint64)
}

// The free memory, in bytes, below which the measurement stops, so that a desktop stays
// usable. What is measured has been allocated before.
const (
	minHostMemory = 512 << 20
	minGPUMemory  = 128 << 20
)

// Run measures the cases one after another, each in a server of its own. A case that
// fails has an error, and the others are measured all the same. Run stops with an error
// that wraps [ErrMemory], or with that of ctx, and returns what was measured until then.
func Run(ctx context.Context, o Options, cases []speed.Settings) ([]speed.Run, error) {
	if o.Memory == nil {
		o.Memory = freeMemory
	}
	total := len(cases) * len(o.Depths) * (o.Rounds + 1)
	done := 0
	var runs []speed.Run
	for _, c := range cases {
		step := func() {
			done++
			o.Progress(float64(done)/float64(total), c)
		}
		before := done
		depths, err := runCase(ctx, o, c, step)
		done = before + len(o.Depths)*(o.Rounds+1)
		if ctx.Err() != nil {
			return runs, context.Cause(ctx)
		}
		run := speed.Run{Settings: c, Depths: depths}
		if err != nil {
			run.Depths, run.Error = nil, err.Error()
		}
		if errors.Is(err, ErrMemory) {
			return runs, err
		}
		runs = append(runs, run)
	}
	return runs, nil
}

// runCase measures one case at all depths.
func runCase(ctx context.Context, o Options, c speed.Settings, step func()) (depths []speed.Depth, err error) {
	s := o.Settings
	s.Backend, s.NoFlashAttention = plan.Backend(c.Backend), !c.FlashAttention
	s.Slots, s.Batch, s.Restart.Disabled = 1, c.Batch, true
	if c.Override != "" {
		s.Devices.Override = plan.Override(c.Override)
	}
	for _, d := range o.Depths {
		s.Context = max(s.Context, contextFor(d, o))
	}
	if c.Backend == string(plan.BackendHIP) {
		defer setenv("ROCBLAS_USE_HIPBLASLT", map[bool]string{true: "1", false: "0"}[c.HIPBLASLt])()
	}
	if err := checkMemory(o, nil); err != nil {
		return nil, err
	}
	srv, err := rocm.Launch(ctx, o.Path, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	b := bench{Options: o, api: llamaapi.New(srv.Child.BaseURL(), srv.Child.HTTPClient()), devices: srv.CurrentPlan().Chosen, step: step}
	if err := b.tokenize(ctx); err != nil {
		return nil, err
	}
	for _, d := range o.Depths {
		depth, err := b.depth(ctx, d)
		if err != nil {
			return nil, err
		}
		depths = append(depths, depth)
	}
	return depths, nil
}

// contextFor returns the context that a measurement at a depth needs, in units of 256.
func contextFor(depth int, o Options) int {
	return (depth + o.Prompt + o.Answer + 8 + 255) / 256 * 256
}

// setenv sets a variable that llama-server inherits, until the returned function is
// called.
func setenv(name, value string) (restore func()) {
	old, set := os.LookupEnv(name)
	_ = os.Setenv(name, value) // fails for malformed names only
	return func() {
		if set {
			_ = os.Setenv(name, old)
			return
		}
		_ = os.Unsetenv(name)
	}
}

// bench measures with one server.
type bench struct {
	Options
	api     *llamaapi.Client
	devices []gpu.Device
	step    func()
	tokens  []int32
	sent    int // requests
}

// tokenize sets tokens that suffice for all prompts, of which no two are equal.
func (b *bench) tokenize(ctx context.Context) error {
	longest := 0
	for _, d := range b.Depths {
		longest = max(longest, d)
	}
	need := longest + b.Prompt*(b.Rounds+1)*len(b.Depths)
	words := []string{"river", "stone", "the", "seven", "of", "paper", "green", "and", "walks", "under", "light", "old", "a", "market", "winter", "quiet", "machine"}
	var text strings.Builder
	for i := range need { // a word is a token or more
		text.WriteString(words[(i*i+i/7)%len(words)])
		text.WriteByte(' ')
	}
	var err error
	b.tokens, err = b.api.Tokenize(ctx, text.String(), llamaapi.TokenizeOptions{})
	if err == nil && len(b.tokens) < need {
		err = fmt.Errorf("llama-server made %d tokens of %d words", len(b.tokens), need)
	}
	return err
}

// depth measures at one depth.
func (b *bench) depth(ctx context.Context, depth int) (speed.Depth, error) {
	var prompts, answers []float64
	for round := range b.Rounds + 1 {
		if err := checkMemory(b.Options, b.devices); err != nil {
			return speed.Depth{}, err
		}
		t, err := b.request(ctx, depth)
		if err != nil {
			return speed.Depth{}, err
		}
		b.step()
		if round == 0 {
			continue // it also fills the cache, and drivers compile their kernels in it
		}
		prompts, answers = append(prompts, t.PromptPerSecond), append(answers, t.PredictedPerSecond)
	}
	return speed.Depth{Tokens: depth, Prompt: speed.NewSample(prompts), Generation: speed.NewSample(answers)}, nil
}

// request sends a prompt whose first tokens the server has in its cache after the first
// round, and returns the times of the rest.
func (b *bench) request(ctx context.Context, depth int) (llamaapi.Timings, error) {
	from := len(b.tokens) - b.Prompt*(b.sent+1)
	b.sent++
	tokens := slices.Concat(b.tokens[:depth], b.tokens[from:from+b.Prompt])
	yes, n, temperature := true, b.Answer, float32(0)
	result, err := b.api.Complete(ctx, &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{{Tokens: tokens}}, MaxTokens: &n, Temperature: &temperature, CachePrompt: &yes,
		Extra: map[string]any{"ignore_eos": true},
	})
	if err != nil {
		return llamaapi.Timings{}, err
	}
	t := result[0].Timings
	if t.PromptPerSecond <= 0 || t.PredictedPerSecond <= 0 {
		return t, errors.New("llama-server reported no times; use a newer one")
	}
	return t, nil
}

// checkMemory returns an error if memory is short.
func checkMemory(o Options, devices []gpu.Device) error {
	hostFree, gpuFree := o.Memory(devices)
	switch {
	case hostFree < minHostMemory:
		return fmt.Errorf("%w: %d MiB of main memory are available; close other programs or use a smaller model", ErrMemory, hostFree>>20)
	case gpuFree < minGPUMemory:
		return fmt.Errorf("%w: %d MiB of the GPU's memory are free; close other programs or use a smaller model", ErrMemory, gpuFree>>20)
	}
	return nil
}

// freeMemory returns the kernel's figures.
func freeMemory(devices []gpu.Device) (hostFree, gpuFree uint64) {
	hostFree, gpuFree = host.ReadMemory("/").Available, ^uint64(0)
	if hostFree == 0 {
		hostFree = ^uint64(0) // unknown
	}
	for _, d := range devices {
		if !d.MemoryKnown || d.Integrated {
			continue
		}
		if s := gpu.NewFS("/").Sample(d); s.Err == nil {
			gpuFree = min(gpuFree, s.VRAMTotal-min(s.VRAMUsed, s.VRAMTotal))
		}
	}
	return hostFree, gpuFree
}

// Remaining returns the time that is left when a share was done in the time since
// start.
func Remaining(start, now time.Time, done float64) time.Duration {
	if done <= 0 {
		return 0
	}
	elapsed := now.Sub(start)
	return time.Duration(float64(elapsed)/done) - elapsed
}
