package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/metrics"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/internal/sdnotify"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

// serveSeveral serves models by name.
func serveSeveral(cmd *cobra.Command, f *serveFlags) error {
	log := serveLogger(cmd)
	notifier := sdnotify.FromEnv(os.Getenv, log)
	stops, reloadSignals := onSIGHUP(hasTerminal())
	ctx, stop := signal.NotifyContext(cmd.Context(), append(stops, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	if err := f.pullMissing(ctx, cmd, "", f.modelSettings(cmd, log), notifier); err != nil {
		if ctx.Err() != nil {
			return nil // stopped by a signal
		}
		return err
	}
	checked, err := f.prepareSeveral(cmd, log)
	if err != nil {
		return err
	}
	var pool *rocm.Pool // set before anything is observed
	observed := f.newObserver(log, func() []metrics.Model { return poolMetrics(pool) })
	if err := f.openAccessLog(observed, cmd); err != nil {
		return err
	}
	observed.attach(&checked.pool)
	l, err := gateway.Listen(ctx, f.listen, checked.credentials)
	if err != nil {
		return err
	}
	if pool, err = rocm.NewPool(checked.pool); err != nil {
		return errors.Join(err, l.Close())
	}
	stopObserving, err := observed.start(ctx, reloadSignals)
	if err != nil {
		return errors.Join(err, l.Close(), pool.Close())
	}
	defer stopObserving()
	page := f.page(log)
	s := &severalServer{cmd: cmd, log: log, current: f, pool: pool, credentials: checked.credentials, observed: observed}
	reloads := newReloader(f.version, s.watchedVersion, s.reload)
	handler := gateway.New(observed.options(gateway.Options{
		Credentials: checked.credentials, Models: poolModels{pool}, Origins: f.origins, Log: log, UsageFile: f.usagePath(), Page: page, NoStatusPage: f.noPage,
		Restart: func(model string) {
			if err := pool.Restart(model); err != nil {
				log.Warn("a model could not be restarted", "model", model, "cause", err.Error())
			}
		},
		Reload: reloads.request,
	}))
	s.reloaded = handler.ModelsReloaded
	srv := newHTTPServer(handler, log)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer reloads.run(ctx, reloadSignals)()

	url := gateway.URL(l, checked.credentials)
	names := len(pool.List())
	notifier.Ready(fmt.Sprintf("serving %d models", names))
	log.Info("serving", "models", names, "address", url)
	_, _ = fmt.Fprintf(stdout(cmd), "serving %d models on %s\n", names, url)
	printPage(cmd, page, url)
	go func() {
		for range pool.Watch(ctx) {
			notifier.Status(loadedStatus(pool))
		}
	}()
	defer notifier.Watchdog(func() bool { return pool.List() != nil })()

	var failure error
	select {
	case <-ctx.Done():
	case err := <-served:
		failure = fmt.Errorf("serve on %s: %w", f.listen, err)
	}
	stop() // a second signal kills the program
	notifyStopping(notifier, f.drain)
	drain, cancel := context.WithTimeout(context.Background(), f.drain)
	defer cancel()
	if err := srv.Shutdown(drain); err != nil {
		_ = srv.Close() // drain has passed
	}
	handler.Close()
	return errors.Join(failure, pool.Close())
}

// loadedStatus says how many models are loaded.
func loadedStatus(pool *rocm.Pool) string {
	list := pool.List()
	loaded := 0
	for _, m := range list {
		if m.State == rocm.ModelLoaded {
			loaded++
		}
	}
	return fmt.Sprintf("%d of %d models loaded", loaded, len(list))
}

// severalServer applies new settings to a running service.
type severalServer struct {
	cmd         *cobra.Command
	log         *slog.Logger
	current     *serveFlags
	pool        *rocm.Pool
	credentials *gateway.CredentialStore
	observed    *observer
	reloaded    func() // called after a reload
}

// watchedVersion returns the version of the configuration file with --watch-config, else
// an empty string.
func (s *severalServer) watchedVersion() string {
	if !s.current.watchConfig {
		return ""
	}
	return fileVersion(s.current.config)
}

// fileVersion returns what changes with a configuration file: the digest of its content,
// since packages and images may give all files the same time. It is empty if the file
// cannot be read.
func fileVersion(path string) string {
	raw, err := regfile.Read(path, maxConfigSize)
	if err != nil {
		return ""
	}
	digest := sha256.Sum256(raw)
	return hex.EncodeToString(digest[:])
}

// reload reads the settings again, and applies them if all of them are valid.
func (s *severalServer) reload() {
	fail := func(err error) {
		s.log.Error("settings not reloaded; the previous ones remain in use", "cause", err.Error())
	}
	cmd, next := newServe()
	cmd.SetContext(s.cmd.Context())
	var err error
	s.current.flags.Visit(func(flag *pflag.Flag) { err = errors.Join(err, repeatFlag(cmd.Flags(), flag)) })
	if err == nil {
		_, err = next.configure(cmd, s.current.args)
	}
	if err == nil && !next.several {
		err = byLine(append(slices.Clone(next.mistakes), errors.New("one model instead of several needs a restart of the service")))
	}
	if err != nil {
		fail(err)
		return
	}
	checked, err := next.prepareSeveral(s.cmd, s.log)
	if err != nil {
		fail(err)
		return
	}
	s.observed.attach(&checked.pool)
	if err := s.credentials.Accepts(checked.credentials); err != nil {
		fail(err)
		return
	}
	changes, err := s.pool.Configure(checked.pool)
	if err != nil {
		fail(err)
		return
	}
	s.credentials.Adopt(checked.credentials)
	for _, key := range append([]string{"listen", "cors-origin", "drain", "min-residency", "usage-file"}, observeKeys()...) {
		if was, is := s.current.flags.Lookup(key).Value.String(), cmd.Flags().Lookup(key).Value.String(); was != is {
			s.log.Warn("a changed setting needs a restart of the service", "key", key)
		}
	}
	s.log.Info("settings reloaded", "models", len(checked.pool.Models), "changes", changes)
	next.flags = cmd.Flags()
	s.current = next
	s.reloaded()
}

// repeatFlag sets a flag in fs as the command line has set it.
func repeatFlag(fs *pflag.FlagSet, flag *pflag.Flag) error {
	if fs.Lookup(flag.Name) == nil {
		return nil // --verbose, of the parent command
	}
	values := []string{flag.Value.String()}
	if list, ok := flag.Value.(pflag.SliceValue); ok {
		values = list.GetSlice()
	}
	for _, value := range values {
		if err := fs.Set(flag.Name, value); err != nil {
			return err
		}
	}
	return nil
}

// poolModels makes a pool the Models of a gateway.
type poolModels struct{ pool *rocm.Pool }

var _ gateway.Models = poolModels{}

// Resolve implements gateway.Models.
func (m poolModels) Resolve(name string) (rocm.ModelStatus, error) {
	s, err := m.pool.Status(name)
	return s, gatewayError(name, err)
}

// Acquire implements gateway.Models.
func (m poolModels) Acquire(ctx context.Context, r rocm.AcquireRequest) (gateway.Lease, error) {
	l, err := m.pool.AcquireWith(ctx, r)
	if err != nil {
		return nil, gatewayError(r.Name, err)
	}
	return poolLease{l}, nil
}

// List implements gateway.Models.
func (m poolModels) List() []rocm.ModelStatus { return m.pool.List() }

// Load implements gateway.Models.
func (m poolModels) Load(ctx context.Context, name string) error {
	return gatewayError(name, m.pool.Load(ctx, name))
}

// Unload implements gateway.Models.
func (m poolModels) Unload(ctx context.Context, name string) error {
	return gatewayError(name, m.pool.Unload(ctx, name))
}

// Watch implements gateway.Models.
func (m poolModels) Watch(ctx context.Context) <-chan rocm.ModelStatus { return m.pool.Watch(ctx) }

// poolLease implements gateway.Lease.
type poolLease struct{ *rocm.Lease }

// Backend implements gateway.Lease.
func (l poolLease) Backend() gateway.Backend { return l.Lease.Model().Server().Child }

// Slots implements gateway.Lease.
func (l poolLease) Slots() int { return l.Lease.Model().Server().Plan.Slots }

// Model implements gateway.Lease.
func (l poolLease) Model() string { return l.Name() }

// retryNoRoom is when a client may ask again for a model whose memory other programs
// hold, retryQueue after too many have asked.
const retryNoRoom, retryQueue = 30 * time.Second, 10 * time.Second

// gatewayError returns the gateway's error for one of a pool.
func gatewayError(name string, err error) error {
	var room *scheduler.NoRoomError
	var failed *scheduler.FailedError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rocm.ErrUnknownModel):
		return gateway.ErrUnknownModel
	case errors.Is(err, rocm.ErrNoModelName):
		return gateway.ErrNoModelName
	case errors.Is(err, rocm.ErrNotLoaded):
		return gateway.ErrNotLoaded
	case errors.Is(err, rocm.ErrUnloaded):
		return gateway.ErrUnloaded
	case errors.Is(err, rocm.ErrQueueFull):
		return &gateway.QueueFullError{Model: name, RetryAfter: retryQueue}
	case errors.As(err, &room):
		e := &gateway.NoRoomError{Model: name, Reasons: room.Reasons}
		if room.Cause != nil {
			e.Reasons = []string{room.Cause.Error()}
		}
		if room.Temporary {
			e.RetryAfter = retryNoRoom
		}
		return e
	case errors.As(err, &failed):
		return &gateway.LoadError{Model: name, Err: failed.Cause, RetryAfter: max(time.Until(failed.RetryAt), 0)}
	}
	return err
}
