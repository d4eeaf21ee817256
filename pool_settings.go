package rocm

import (
	"log/slog"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

// PoolModel are the settings of one model of a Pool.
type PoolModel struct {
	Settings

	// Path is a GGUF file, or a directory with one model.
	Path string
	// Aliases are further names of the model.
	Aliases []string
	// Pinned models are loaded at once and never evicted.
	Pinned bool
	// IdleUnload is how long the model stays loaded without a lease; 0: until its
	// memory is needed.
	IdleUnload time.Duration
	// PartialOffload allows a model that does not fit on a card whole to be divided
	// between the card and the host. A number of Layers allows it, too.
	PartialOffload bool
}

// PoolSettings are the settings of a Pool. The zero value of every field but Models
// is its default.
type PoolSettings struct {
	// Models are the models by their names.
	Models map[string]PoolModel
	// Default is the name that an empty name stands for; empty: that of the only
	// model.
	Default string
	// MinResidency is how long a model stays before another model may evict it, so
	// that two models do not replace each other with every request. Default: 15
	// seconds; negative: none.
	MinResidency time.Duration
	// Patience is how long a request waits before busy models get no further leases
	// until its model is loaded. Default: 30 seconds.
	Patience time.Duration
	// Queue is how many requests may wait for one model. Default: 256.
	Queue int
	// MinBackoff and MaxBackoff limit the wait before a model that failed is loaded
	// again. Defaults: 2 seconds and 5 minutes.
	MinBackoff, MaxBackoff time.Duration
	// YieldMemory is the free memory of a card in bytes, below which idle models are
	// unloaded for other programs. Default: a quarter of the margin.
	YieldMemory uint64
	// HostMemory limits the main memory of all models, in bytes; default: what the
	// machine, or the control group, has.
	HostMemory uint64
	// OnUnload is called when a model begins to be unloaded, with its name and the
	// cause; nil: not called. It must not block.
	OnUnload func(model string, cause scheduler.UnloadCause)
	// SysRoot is Settings.SysRoot for the pool and all its models.
	SysRoot string
	// Log receives what happens; nil: nothing is logged. It is the log of models
	// that have none.
	Log *slog.Logger
}

// Validate checks the settings, the files of the models and their names, as NewPool does.
func (s *PoolSettings) Validate() error {
	_, _, err := readModels(*s)
	return err
}

func (s *PoolSettings) limits() scheduler.Limits {
	l := scheduler.Limits{
		MinResidency: s.MinResidency, Patience: s.Patience, Queue: s.Queue,
		MinBackoff: s.MinBackoff, MaxBackoff: s.MaxBackoff, Poll: 5 * time.Second,
	}
	for _, d := range []struct {
		value    *time.Duration
		standard time.Duration
	}{{&l.MinResidency, 15 * time.Second}, {&l.Patience, 30 * time.Second}, {&l.MinBackoff, 2 * time.Second}, {&l.MaxBackoff, 5 * time.Minute}} {
		if *d.value == 0 {
			*d.value = d.standard
		}
	}
	l.MinResidency = max(l.MinResidency, 0)
	if l.Queue == 0 {
		l.Queue = 256
	}
	return l
}
