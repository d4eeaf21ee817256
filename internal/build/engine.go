package build

import (
	"context"
	"errors"
	"io"
	"sync"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/internal/build/progress"
)

// lazyEngine connects to the engine on first use, so that a build whose stages are
// all cached needs no engine.
type lazyEngine struct {
	options engine.ConnectOptions
	display *progress.Display
	// vary runs jobs in a varied environment, for the second build of a
	// reproducibility check.
	vary bool
	mu   sync.Mutex
	eng  engine.Engine
}

func (l *lazyEngine) get(ctx context.Context) (engine.Engine, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.eng == nil {
		eng, err := engine.Connect(ctx, l.options)
		if err != nil {
			return nil, err
		}
		l.eng = eng
		if l.vary {
			l.eng = engine.Vary(eng)
		}
	}
	return l.eng, nil
}

func (l *lazyEngine) Image(ctx context.Context, ref string) (engine.Image, error) {
	eng, err := l.get(ctx)
	if err != nil {
		return engine.Image{}, err
	}
	return eng.Image(ctx, ref)
}

func (l *lazyEngine) Pull(ctx context.Context, ref string, progress io.Writer) (engine.Image, error) {
	eng, err := l.get(ctx)
	if err != nil {
		return engine.Image{}, err
	}
	return eng.Pull(ctx, ref, progress)
}

func (l *lazyEngine) Resolve(ctx context.Context, ref string) (string, error) {
	eng, err := l.get(ctx)
	if err != nil {
		return "", err
	}
	return eng.Resolve(ctx, ref)
}

func (l *lazyEngine) Import(ctx context.Context, ref string, rootfs io.Reader) (engine.Image, error) {
	eng, err := l.get(ctx)
	if err != nil {
		return engine.Image{}, err
	}
	counted := l.display.Reader("import "+ref, -1, rootfs)
	img, err := eng.Import(ctx, ref, struct{ io.Reader }{counted}) // hides Close, which would end the display
	return img, errors.Join(err, counted.Close())
}

func (l *lazyEngine) Run(ctx context.Context, job engine.Job) error {
	eng, err := l.get(ctx)
	if err != nil {
		return err
	}
	return eng.Run(ctx, job)
}

func (l *lazyEngine) Files(ctx context.Context, ref string) (engine.Files, error) {
	eng, err := l.get(ctx)
	if err != nil {
		return nil, err
	}
	return eng.Files(ctx, ref)
}

func (l *lazyEngine) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.eng == nil {
		return nil
	}
	return l.eng.Close()
}
