package rocm

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

// poolModel is a file with settings. Names of the pool that have the same file and
// the same settings share it, and its process.
type poolModel struct {
	key      string
	path     string
	settings Settings
	partial  bool
	facts    modelFacts
	planning sync.Mutex // held by Pool.plan, and protects the next two
	// plannedAt is when the last plan was made, planErr its outcome.
	plannedAt time.Time
	planErr   error

	// The pool's mutex protects what follows.
	names      []string // sorted; the first one is the model's name in answers
	aliases    []string // names that were given as aliases
	pinned     bool
	idleUnload time.Duration
	phase      scheduler.Phase
	retryAt    time.Time  // of a model that failed
	planned    *plan.Plan // the last plan, nil before
	refusal    error      // why there is no plan that can be used
	options    map[string]plan.Options
	progress   LoadProgress
	listeners  map[*progressListener]bool
}

// modelFacts are the facts from a model's header.
type modelFacts struct {
	size         int64
	chatTemplate bool
	vision       bool
	audio        bool
}

// name returns the model's name: the first one that is no alias.
func (m *poolModel) name() string {
	for _, name := range m.names {
		if !slices.Contains(m.aliases, name) {
			return name
		}
	}
	return m.names[0]
}

// rename takes the names and the limits of the same model in other settings.
func (m *poolModel) rename(other *poolModel) {
	m.names, m.aliases, m.pinned, m.idleUnload = other.names, other.aliases, other.pinned, other.idleUnload
}

// readModels checks all models of the settings. It returns the keys by the names,
// and the models by their keys. A key is a model's name, which its process answers
// with, and the digest of modelDigest.
func readModels(s PoolSettings) (names map[string]string, models map[string]*poolModel, err error) {
	names, models = map[string]string{}, map[string]*poolModel{}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Models)) {
		set := s.Models[name]
		set.SysRoot = s.SysRoot
		if set.Log == nil {
			set.Log = s.Log
		}
		m, err := readModel(set)
		if err != nil {
			errs = append(errs, &PoolModelError{Name: name, Err: err})
			continue
		}
		if same := models[m.key]; same != nil {
			same.pinned = same.pinned || m.pinned
			if m.idleUnload == 0 || same.idleUnload != 0 && m.idleUnload > same.idleUnload {
				same.idleUnload = m.idleUnload
			}
			m = same
		}
		models[m.key] = m
		m.aliases = append(m.aliases, set.Aliases...)
		for _, each := range append([]string{name}, set.Aliases...) {
			switch other, taken := names[each]; {
			case each == "":
				errs = append(errs, &PoolModelError{Name: name, Err: plan.InvalidOption("Aliases", "an empty name")})
			case taken && other != m.key:
				errs = append(errs, &PoolModelError{Name: name, Err: plan.InvalidOption("Aliases", "the name %q belongs to another model, too", each)})
			case !taken:
				names[each] = m.key
				m.names = append(m.names, each)
			}
		}
	}
	if s.Default != "" && names[s.Default] == "" && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("the default: %w: %s", ErrUnknownModel, s.Default))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	named := map[string]*poolModel{}
	for _, m := range models {
		slices.Sort(m.names)
		m.key = m.name() + "-" + m.key
		named[m.key] = m
		for _, name := range m.names {
			names[name] = m.key
		}
	}
	return names, named, nil
}

// PoolModelError is a mistake in the settings of a model.
type PoolModelError struct {
	Name string
	Err  error
}

// Error implements error.
func (e *PoolModelError) Error() string { return fmt.Sprintf("model %s: %v", e.Name, e.Err) }

// Unwrap returns the mistake.
func (e *PoolModelError) Unwrap() error { return e.Err }

// readModel checks the settings of a model and reads its header. Its error joins a
// plan.OptionError for each mistake.
func readModel(s PoolModel) (*poolModel, error) {
	err := s.Validate()
	if s.IdleUnload < 0 {
		err = errors.Join(err, plan.InvalidOption("IdleUnload", "IdleUnload %v; use 0 to keep the model loaded", s.IdleUnload))
	}
	path, f, openErr := machine.OpenModel(s.Path)
	if err = errors.Join(err, openErr); err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return nil, err
	}
	defer func() { _ = f.Close() }()
	digest, err := modelDigest(path, s)
	if err != nil {
		return nil, err
	}
	return &poolModel{
		key: digest, path: path, settings: s.Settings, partial: s.PartialOffload || s.Layers > 0 || s.Layers == plan.AllLayers,
		pinned: s.Pinned, idleUnload: s.IdleUnload, facts: readFacts(f, s.Projector),
		options: map[string]plan.Options{}, listeners: map[*progressListener]bool{},
	}, nil
}

// readFacts reads the header of a model, and that of its projector if it has one.
func readFacts(f *gguf.File, projector string) modelFacts {
	facts := modelFacts{size: f.Size(), chatTemplate: f.ChatTemplate() != ""}
	if projector == "" {
		return facts
	}
	p, err := gguf.Open(projector)
	if err != nil {
		return facts // planning reports it
	}
	defer func() { _ = p.Close() }()
	facts.vision, _ = p.Bool("clip.has_vision_encoder") // absent: no
	facts.audio, _ = p.Bool("clip.has_audio_encoder")
	return facts
}

// modelDigest returns a digest of a file's identity and of all settings that its
// process depends on, besides the name.
func modelDigest(path string, s PoolModel) (string, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	info, err := os.Stat(target)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrModelFile, err)
	}
	set := s.Settings
	set.Alias, set.Log, set.Progress, set.OnEvent = "", nil, nil, nil
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %d %d %v %#v", target, info.Size(), info.ModTime().UnixNano(), s.PartialOffload, set)
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}

// describeChanges returns a sentence for each model that differs.
func describeChanges(oldNames, names map[string]string, old, models map[string]*poolModel) []string {
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(oldNames)) {
		switch key, ok := names[name]; {
		case !ok:
			changes = append(changes, name+" is removed")
		case key != oldNames[name]:
			changes = append(changes, name+" has other settings or another file")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if _, ok := oldNames[name]; !ok {
			changes = append(changes, name+" is new")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(models)) {
		if was, m := old[key], models[key]; was != nil && (was.pinned != m.pinned || was.idleUnload != m.idleUnload) {
			changes = append(changes, strings.Join(m.names, ", ")+": pinned or idle-unload changed")
		}
	}
	return changes
}
