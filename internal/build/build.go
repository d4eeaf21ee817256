// Package build puts the build's rooms together: it is what the mage targets
// call. Each function is one target; what they do in which order is written
// here and nowhere else.
package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/internal/progress"
	"forge.lthn.ai/core/go-rocm/internal/settings"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Session is an opened build: settings read, cache and engine at hand.
type Session struct {
	Settings *settings.Settings
	Recipe   *recipe.Recipe
	Epoch    time.Time
	Out      io.Writer
	engine   *lazyEngine
	began    time.Time
}

// Open reads the settings and prepares a build. The container engine is only
// reached when a step needs it.
func Open() (*Session, error) {
	s, err := settings.Read()
	if err != nil {
		return nil, err
	}
	lock, err := recipe.SourceLock()
	if err != nil {
		return nil, err
	}
	epoch := lock.Time()
	if !s.SourceDate.IsZero() {
		epoch = s.SourceDate
	}
	cache, err := stage.Open(filepath.Join(s.Cache, "stages"))
	if err != nil {
		return nil, err
	}
	logs := filepath.Join(s.Cache, "logs")
	b := &Session{Settings: s, Epoch: epoch, Out: os.Stderr, began: time.Now()}
	display := progress.New(os.Stderr, logs)
	b.engine = &lazyEngine{display: display, elsewhere: s.Elsewhere, options: engine.ConnectOptions{
		MayInstall: func() bool {
			return b.agree("No container engine is running. Install docker.io and iptables and start dockerd?")
		},
		LogDir: logs, Log: os.Stderr,
	}}
	b.Recipe = &recipe.Recipe{
		Engine: b.engine, Cache: cache, Lock: lock, Source: s.Source, Targets: s.Targets,
		CMake: s.CMake, Jobs: s.Jobs, Memory: int64(s.Memory), Log: os.Stderr,
		Progress: display,
		Toolchain: toolchain.Spec{
			Kind: s.Toolchain, Suite: s.Suite, BaseImage: s.BaseImage,
			MmdebstrapImage: s.Mmdebstrap, Epoch: lock.Time(), Locked: s.Locked,
		},
	}
	return b, nil
}

// Close lets go of the engine.
func (s *Session) Close() error { return s.engine.Close() }

// Interruptible gives a context that ends with Ctrl-C or SIGTERM.
func Interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// say prints a line about the build itself.
func (s *Session) say(format string, args ...any) error {
	_, err := fmt.Fprintf(s.Out, format+"\n", args...)
	return err
}

// Variants gives the variants that are asked for, in the order of the setting,
// each in the flavours that are asked for. What holds nothing of ROCm comes in
// one flavour whatever is asked.
func (s *Session) Variants() ([]recipe.Variant, error) {
	var vs []recipe.Variant
	for _, name := range s.Settings.Variants {
		v, err := recipe.VariantNamed(name)
		if err != nil {
			return nil, err
		}
		if _, err := v.In(bundle.FlavourSystem); err != nil {
			vs = append(vs, v)
			continue
		}
		for _, flavour := range s.Settings.Flavours {
			in, err := v.In(flavour)
			if err != nil {
				return nil, err
			}
			vs = append(vs, in)
		}
	}
	return vs, nil
}

// within runs f in an opened, interruptible build.
func within(f func(context.Context, *Session) error) error {
	s, err := Open()
	if err != nil {
		return err
	}
	ctx, stop := Interruptible()
	defer stop()
	return errors.Join(f(ctx, s), s.Close())
}

// inCheckout is within, for what changes the deliverables or the bundle that is
// compiled in: one at a time in a checkout, since another would compile in what
// the first has put there, or take its folder away.
func inCheckout(f func(context.Context, *Session) error) error {
	return within(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		return s.alone(ctx, flock.New(filepath.Join(root, payloadDir), flock.SetFlag(os.O_RDONLY)), "another build in this checkout",
			func() error { return f(ctx, s) })
	})
}

// alone runs f while it holds a lock. Who has to wait for it is told what for.
func (s *Session) alone(ctx context.Context, lock *flock.Flock, holder string, f func() error) (err error) {
	got, err := lock.TryLock()
	if err == nil && !got {
		if err := s.say("waiting for %s to end", holder); err != nil {
			return err
		}
		_, err = lock.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil {
		return fmt.Errorf("wait for %s: %w", holder, err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return f()
}

// Config prints the settings as they stand.
func Config() error {
	s, err := settings.Read()
	if err != nil {
		return err
	}
	return s.Print(os.Stdout)
}
