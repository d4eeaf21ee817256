package rocm

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Settings are the options of loading a model. The zero value of every field is
// its default.
type Settings struct {
	// Options are the choices about memory and devices: Context, Slots, Layers,
	// Adapters, Projector, Draft, Cache, Devices and others.
	plan.Options

	// Bundle is the path of a bundle to use instead of the one that is found: a
	// directory or a packed file.
	Bundle string
	// Server is the path of a llama-server that is not from a bundle, such as that of a
	// distribution, or its name in $PATH. It is asked once for its version, its flags and
	// its devices, nothing of it is verified, and flags that it does not have are left
	// out. Bundle must be empty.
	Server string
	// Download lets loading download the model that a reference such as
	// hf:OWNER/REPO names, if the store of runtime/modelstore does not have it. Without
	// it, that is an error that wraps ErrNotFound of that package.
	Download bool
	// Alias is the model's name in the server's answers; empty: the file's name, with
	// dashes for commas. An alias has no commas, which llama-server takes for a list.
	Alias string
	// ChatTemplateFile is the path of a template that replaces the model's own.
	ChatTemplateFile string
	// Embeddings or Reranking start the server for that purpose alone, ready for
	// texts of Context tokens, 8192 at most, unless Args set a batch size.
	Embeddings, Reranking bool
	// Pooling is how the vectors of a text's tokens become one: mean, cls, last or
	// rank; empty: the model's own.
	Pooling string
	// SlotDir is the directory of saved slots; empty: slots cannot be saved.
	SlotDir string
	// Args are further arguments for llama-server. Loading fails with
	// ErrInvalidOption for a flag that llama-server does not have.
	Args []string
	// Metrics serves Prometheus metrics on llama-server's /metrics.
	Metrics bool
	// TCP is a host:port for the child to listen on instead of a private socket.
	TCP string
	// SysRoot is the directory below which the kernel's files about GPUs and memory
	// are read; empty: "/". A tree of text files describes another machine.
	SysRoot string

	// Timeouts limit how long the child may take.
	Timeouts Timeouts
	// Restart says when a child that failed is started again.
	Restart Restart

	// Log receives what happens; nil: nothing is logged.
	Log *slog.Logger
	// Progress is called while the model loads; nil: not called.
	Progress func(LoadProgress)
	// OnEvent is called with each change of the child's state, while the model
	// loads and for the rest of its life. It must not block.
	OnEvent func(supervise.Event)
}

// Timeouts limit how long the child may take. 0 is the default of each.
type Timeouts struct {
	// Start limits a start without a sign of progress; default: one minute and a
	// second for every 32 MiB of the model.
	Start time.Duration
	// Stall limits how long requests may run without a token, and on the CPU
	// without work. Default: 2 minutes, or 10 minutes where a GPU has only a part
	// of the model; negative: no limit.
	Stall time.Duration
	// Drain is how long Close waits for requests that were sent without the
	// Model's methods; default: 5 seconds; negative: not at all.
	Drain time.Duration
	// Stop is how long the child may take to exit before it is killed; default: 10
	// seconds.
	Stop time.Duration
}

// Restart limits how often a child that failed is started again. By default it is
// restarted, unless the cause is one that a restart cannot cure: requests that were
// running fail with the cause, and later requests wait for the new process.
type Restart struct {
	// Disabled leaves a failed child dead: every later request fails with its cause.
	Disabled bool
	// MaxFailures in a row end the child for good; default 5.
	MaxFailures int
	// MinBackoff and MaxBackoff limit the wait before a restart, which doubles with
	// each failure in a row; defaults 500 ms and 1 minute.
	MinBackoff, MaxBackoff time.Duration
	// ResetAfter is how long a child must run without a fault to end the row of
	// failures; default 10 minutes.
	ResetAfter time.Duration
	// IgnoreRequestFailures leaves out of the row the failures of a child that had
	// received requests, so that no client of a service can end it. Requests that only
	// read do not count.
	IgnoreRequestFailures bool
}

func (r Restart) policy() supervise.RestartPolicy {
	if r.Disabled {
		return supervise.RestartPolicy{Mode: supervise.Never}
	}
	return supervise.RestartPolicy{
		Mode: supervise.OnFailure, MinBackoff: r.MinBackoff, MaxBackoff: r.MaxBackoff, MaxFailures: r.MaxFailures, ResetAfter: r.ResetAfter,
		IgnoreRequestFailures: r.IgnoreRequestFailures,
	}
}

// LoadStage is a part of loading a model.
type LoadStage string

// The stages of loading, in their order. A model that is there and a bundle that is
// unpacked already skip theirs.
const (
	StageDownload LoadStage = "download" // the model comes into the store
	StageUnpack   LoadStage = "unpack"   // the bundle is unpacked into the cache
	StageStart    LoadStage = "start"    // llama-server starts
	StageLoad     LoadStage = "load"     // llama-server reads the model
)

// LoadProgress is how far loading a model has come.
type LoadProgress struct {
	Stage LoadStage
	// Done is the fraction of the stage that is done, from 0 to 1.
	Done float64
}

// withLoadConfig returns the settings with what the contract's options change:
// a field with its default in cfg leaves the setting alone.
func (s Settings) withLoadConfig(cfg inference.LoadConfig) (Settings, error) {
	if cfg.ContextLen != 0 {
		s.Context = cfg.ContextLen
	}
	if cfg.ParallelSlots != 0 {
		s.Slots = cfg.ParallelSlots
	}
	switch {
	case cfg.GPULayers < -1:
		return s, invalidOption("%d GPU layers; use -1 for as many as fit", cfg.GPULayers)
	case cfg.GPULayers == 0:
		s.Layers = plan.CPUOnly
	case cfg.GPULayers > 0:
		s.Layers = cfg.GPULayers
	}
	if cfg.AdapterPath != "" {
		s.Adapters = []string{cfg.AdapterPath}
	}
	return s, nil
}

// Validate checks the settings without starting anything: each option on its own, options that
// exclude each other, and the files and directories that llama-server opens. Prepare calls it.
// Its error joins a [plan.OptionError], which wraps [ErrInvalidOption], for each invalid
// setting.
func (s *Settings) Validate() error {
	return errors.Join(s.Options.Validate(), s.validateServer(), s.checkTemplate())
}

// validateServer is Validate without the options of the plan and the chat template.
func (s *Settings) validateServer() error {
	errs := []error{s.checkSlotDir()}
	invalid := func(option, format string, args ...any) {
		errs = append(errs, plan.InvalidOption(option, format, args...))
	}
	t, r := s.Timeouts, s.Restart
	if s.Bundle != "" && s.Server != "" {
		errs = append(errs, errBundleAndServer())
	}
	if s.Embeddings && s.Reranking {
		invalid("Reranking", "Embeddings and Reranking; a server is for one of them")
	}
	if strings.Contains(s.Alias, ",") || strings.TrimSpace(s.Alias) != s.Alias {
		invalid("Alias", "the alias %q: llama-server would cut it; use one without commas and without spaces at its ends", s.Alias)
	}
	if strings.ContainsFunc(s.Alias, unicode.IsControl) {
		invalid("Alias", "the alias %q has control characters", s.Alias)
	}
	if slices.ContainsFunc(s.Args, func(arg string) bool { return strings.ContainsRune(arg, 0) }) {
		invalid("Args", "an argument for llama-server with a NUL character, which no program can get")
	}
	for _, limit := range []struct {
		option string
		value  time.Duration
	}{{"Timeouts.Start", t.Start}, {"Timeouts.Stall", t.Stall}, {"Timeouts.Drain", t.Drain}, {"Timeouts.Stop", t.Stop}} {
		if limit.value > maxTimeout {
			invalid(limit.option, "a time of %v; use at most %v", limit.value, maxTimeout)
		}
	}
	if s.Pooling != "" && !slices.Contains(poolings(), s.Pooling) {
		invalid("Pooling", "pooling %q; use one of %s", s.Pooling, strings.Join(poolings(), ", "))
	}
	if t.Start < 0 {
		invalid("Timeouts.Start", "a start timeout of %v; use 0 for the default", t.Start)
	}
	if t.Stop < 0 {
		invalid("Timeouts.Stop", "a stop timeout of %v; use 0 for the default", t.Stop)
	}
	if r.MaxFailures < 0 || r.MinBackoff < 0 || r.MaxBackoff < 0 || r.ResetAfter < 0 {
		invalid("Restart", "a negative limit of restarts; use 0 for the default, or Restart.Disabled")
	}
	if r.MaxBackoff > 0 && r.MaxBackoff < r.MinBackoff {
		invalid("Restart", "a longest backoff of %v below the shortest, %v", r.MaxBackoff, r.MinBackoff)
	}
	if s.TCP != "" {
		if err := checkAddress(s.TCP); err != nil {
			invalid("TCP", "the address %q: %w; use host:port", s.TCP, err)
		}
	}
	return errors.Join(errs...)
}

func errBundleAndServer() error {
	return plan.InvalidOption("Server", "a bundle and a llama-server; set one of them (Settings.Bundle, Settings.Server, --bundle, --server)")
}

func poolings() []string { return []string{"none", "mean", "cls", "last", "rank"} }

func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if strings.Contains(host, ",") { // llama-server would listen on each
		err = errors.New("there are several hosts")
	}
	return err
}

// maxTimeout limits timeouts: sums of them must not overflow.
const maxTimeout = 365 * 24 * time.Hour

// maxTemplate limits a chat template, in bytes; real ones have at most some 30 KB.
const maxTemplate = 1 << 20

// checkTemplate checks the file of the chat template, and checkSlotDir the directory of
// slots: llama-server reports a missing file with the text of its usage only, and a
// directory that it cannot write to when a client saves a slot. The files of the plan
// are read by package machine.
func (s *Settings) checkTemplate() error {
	if s.ChatTemplateFile == "" {
		return nil
	}
	raw, err := regfile.Read(s.ChatTemplateFile, maxTemplate)
	if text, textErr := regfile.Text(raw); err == nil && (textErr != nil || len(text) != len(raw)) {
		err = fmt.Errorf("%s begins with a byte order mark, which would become a part of every prompt; save it as UTF-8 without one", s.ChatTemplateFile)
	}
	if err != nil {
		return plan.InvalidOption("ChatTemplateFile", "the chat template file: %w; name a readable file (Settings.ChatTemplateFile, --chat-template-file)", err)
	}
	return nil
}

func (s *Settings) checkSlotDir() error {
	if s.SlotDir == "" {
		return nil
	}
	err := regfile.CheckDir(s.SlotDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return plan.InvalidOption("SlotDir", "the directory of saved slots: %w; create it (Settings.SlotDir, --slot-dir)", err)
	case err != nil:
		return plan.InvalidOption("SlotDir", "the directory of saved slots: %w; name a directory that can be written to (Settings.SlotDir, --slot-dir)", err)
	}
	return nil
}

func (s *Settings) logger() *slog.Logger {
	if s.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return s.Log
}

func (s *Settings) machine() machine.Config {
	return machine.Config{SysRoot: s.SysRoot, Log: s.Log}
}

// onUnpack returns the callback for unpacking, nil without Progress.
func (s *Settings) onUnpack() func(done, total int64) {
	if s.Progress == nil {
		return nil
	}
	return func(done, total int64) {
		s.Progress(LoadProgress{StageUnpack, float64(done) / float64(max(total, 1))})
	}
}

// onEvent returns the callback for the child's events, which also reports
// progress until the child is ready for the first time.
func (s *Settings) onEvent() func(supervise.Event) {
	if s.Progress == nil {
		return s.OnEvent
	}
	loaded := false
	return func(e supervise.Event) {
		switch {
		case loaded:
		case e.To == supervise.Starting:
			s.Progress(LoadProgress{Stage: StageStart})
		case e.To == supervise.Loading:
			s.Progress(LoadProgress{StageLoad, e.Progress})
		case e.To == supervise.Ready:
			s.Progress(LoadProgress{StageLoad, 1})
			loaded = true
		}
		if s.OnEvent != nil {
			s.OnEvent(e)
		}
	}
}
