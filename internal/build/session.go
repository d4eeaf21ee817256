// Package build implements the mage targets: each exported function is one
// target. The order of a target's steps is defined here and nowhere else; the
// steps themselves belong to docker/*, packaging/* and the other packages of
// the build side.
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
	"forge.lthn.ai/core/go-rocm/internal/build/progress"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
)

// Session is one run of a target: its settings, the stage cache and the
// container engine.
type Session struct {
	Settings *settings.Settings
	Recipe   *recipe.Recipe
	Epoch    time.Time
	Out      io.Writer
	// recompressor returns what makes the packages of bundles and the layers of images
	// smaller; nil leaves them as the packages write them.
	recompressor func(context.Context) (*recipe.Recompressor, error)
	engine       *lazyEngine
	started      time.Time
}

// Open reads the settings and opens the stage cache. It does not connect to the
// container engine: the first step that needs the engine does.
func Open() (*Session, error) {
	s, err := settings.Read()
	if err != nil {
		return nil, err
	}
	if s.CI {
		// Programs and tests that run below compare CI with "true".
		if err := os.Setenv("CI", "true"); err != nil {
			return nil, err
		}
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
	cache.Waiting = func(name string) { fmt.Fprintf(os.Stderr, "%s: waiting for another build of it\n", name) }
	logs := logDir(s)
	b := &Session{Settings: s, Epoch: epoch, Out: os.Stderr, started: time.Now()}
	display := progress.New(os.Stderr, logs)
	b.engine = &lazyEngine{display: display, vary: s.Vary, options: engine.ConnectOptions{
		MayInstall: func() bool {
			return b.confirm("No container engine is running. Install docker.io and iptables and start dockerd?")
		},
		LogDir: logs, Log: os.Stderr,
	}}
	b.Recipe = &recipe.Recipe{
		Engine: b.engine, Cache: cache, Lock: lock, Source: s.Source, Targets: s.Targets,
		CMake: s.CMake, Jobs: s.Jobs, Memory: int64(s.Memory), Log: os.Stderr,
		Progress: display,
		Toolchain: toolchain.Spec{
			Kind: s.Toolchain, Suite: s.Suite, BaseImage: s.BaseImage,
			MmdebstrapImage: s.MmdebstrapImage, Epoch: lock.Time(), Locked: s.Locked,
		},
	}
	b.recompressor = b.Recipe.Recompressor
	return b, nil
}

// logDir returns the directory with the logs of the stages.
func logDir(s *settings.Settings) string { return filepath.Join(s.Cache, "logs") }

// writingTo returns a session that writes what it does to out, and shares everything else
// with s. It serves a step that runs beside others.
func (s *Session) writingTo(out io.Writer) *Session {
	session, r := *s, *s.Recipe
	r.Log, r.Progress = out, progress.New(out, logDir(s.Settings))
	session.Out, session.Recipe = out, &r
	if s.recompressor != nil {
		session.recompressor = r.Recompressor
	}
	return &session
}

// Close disconnects from the container engine.
func (s *Session) Close() error { return s.engine.Close() }

// signalContext returns a context that is cancelled by Ctrl-C or SIGTERM.
func signalContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}

// printf prints a line about the progress of the build.
func (s *Session) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(s.Out, format+"\n", args...)
	return err
}

// Variants returns the variants of the settings in their order, each in the
// flavours of the settings. A variant without ROCm has one flavour, whatever the
// settings say.
func (s *Session) Variants() ([]recipe.Variant, error) {
	var vs []recipe.Variant
	for _, name := range s.Settings.Variants {
		v, err := recipe.VariantByName(name)
		if err != nil {
			return nil, err
		}
		if _, err := v.WithFlavour(bundle.FlavourSystem); err != nil {
			vs = append(vs, v)
			continue
		}
		for _, flavour := range s.Settings.Flavours {
			in, err := v.WithFlavour(flavour)
			if err != nil {
				return nil, err
			}
			vs = append(vs, in)
		}
	}
	return vs, nil
}

// withSession opens a session, runs f and closes the session. Ctrl-C and SIGTERM
// cancel the context of f.
func withSession(f func(context.Context, *Session) error) error {
	s, err := Open()
	if err != nil {
		return err
	}
	ctx, stop := signalContext()
	defer stop()
	return errors.Join(f(ctx, s), s.Close())
}

// withCheckout is withSession under the lock of the checkout. Targets that write
// the deliverables or the embedded bundle use it: another build in the same
// checkout would compile in the bundle of the first, or remove its directory.
func withCheckout(f func(context.Context, *Session) error) error {
	return withSession(func(ctx context.Context, s *Session) error {
		root, err := Root()
		if err != nil {
			return err
		}
		return s.withLock(ctx, flock.New(filepath.Join(root, payloadDir), flock.SetFlag(os.O_RDONLY)), "another build in this checkout",
			func() error { return f(ctx, s) })
	})
}

// withLock runs f while it holds lock. If it has to wait, it prints the name of
// the holder first.
func (s *Session) withLock(ctx context.Context, lock *flock.Flock, holder string, f func() error) (err error) {
	got, err := lock.TryLock()
	if err == nil && !got {
		if err := s.printf("waiting for %s to finish", holder); err != nil {
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

// Config prints every setting with its value and meaning.
func Config() error {
	s, err := settings.Read()
	if err != nil {
		return err
	}
	return s.Print(os.Stdout)
}
