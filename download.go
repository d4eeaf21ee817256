package rocm

import (
	"cmp"
	"context"
	"errors"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm/pkg/modelref"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/pull"
)

// useStore prepares the settings for a model of the store: it downloads the model
// where that is allowed, and sets its projector, adapters and chat template unless
// others are set. For a path it does nothing. That the store does not have the model,
// opening it says.
func (s *Settings) useStore(ctx context.Context, name string) error {
	ref, err := modelref.Parse(name)
	if err != nil || !ref.Remote() {
		return nil //nolint:nilerr // opening the model says what is wrong with its name
	}
	path, r, err := modelstore.Resolve(name)
	if errors.Is(err, modelstore.ErrNotFound) && s.Download {
		if err := s.download(ctx, ref); err != nil {
			return &plan.OptionError{Option: "Model", Err: err}
		}
		path, r, err = modelstore.Resolve(name)
	}
	if err != nil {
		return nil //nolint:nilerr // opening the model says it
	}
	var adapters []string
	for _, f := range r.Files {
		file := filepath.Join(filepath.Dir(path), f.Name)
		switch f.Role {
		case modelstore.RoleProjector:
			s.Projector = cmp.Or(s.Projector, file)
		case modelstore.RoleAdapter:
			adapters = append(adapters, file)
		case modelstore.RoleTemplate:
			s.ChatTemplateFile = cmp.Or(s.ChatTemplateFile, file)
		}
	}
	if len(s.Adapters) == 0 {
		s.Adapters = adapters
	}
	return nil
}

// download brings the model that a reference names into the store.
func (s *Settings) download(ctx context.Context, ref modelref.Ref) (err error) {
	p, err := pull.New(nil, s.logger())
	if err != nil {
		return err
	}
	if p.Machine, err = machine.Detect(s.Bundle, s.machine()); err != nil {
		return err
	}
	p.Options = s.Options
	if s.Progress != nil {
		p.Progress = func(_ string, done, total int64) {
			s.Progress(LoadProgress{StageDownload, float64(done) / float64(max(total, 1))})
		}
	}
	store, err := modelstore.Open("")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	found, err := p.Find(ctx, ref)
	if err != nil {
		return err
	}
	if found.Why != "" {
		s.logger().Info("model chosen", "model", found.Record.Name, "reason", found.Why)
	}
	_, err = p.Pull(ctx, store, found)
	return err
}
