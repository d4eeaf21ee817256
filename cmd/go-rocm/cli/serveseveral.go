package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/sdnotify"
)

// serveSeveral serves models by name.
func serveSeveral(cmd *cobra.Command, f *serveFlags) error {
	log := serveLogger(cmd)
	notifier := sdnotify.FromEnv(os.Getenv, log)
	stops, reloads := onSIGHUP(hasTerminal())
	ctx, stop := signal.NotifyContext(cmd.Context(), append(stops, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	checked, err := f.prepareSeveral(cmd, log)
	if err != nil {
		return err
	}
	l, err := gateway.Listen(ctx, f.listen, checked.credentials)
	if err != nil {
		return err
	}
	pool, err := rocm.NewPool(checked.pool)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	handler := gateway.New(gateway.Options{
		Credentials: checked.credentials, Models: poolModels{pool}, Origins: f.origins, Log: log, UsageFile: f.usagePath(),
		Restart: func(model string) {
			if err := pool.Restart(model); err != nil {
				log.Warn("a model could not be restarted", "model", model, "cause", err.Error())
			}
		},
	})
	srv := newHTTPServer(handler, log)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	s := &severalServer{cmd: cmd, log: log, current: f, pool: pool, credentials: checked.credentials}
	defer s.reloadOn(ctx, reloads)()

	url := gateway.URL(l, checked.credentials)
	names := len(pool.List())
	notifier.Ready(fmt.Sprintf("serving %d models", names))
	log.Info("serving", "models", names, "address", url)
	_, _ = fmt.Fprintf(stdout(cmd), "serving %d models on %s\n", names, url)
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
}

// watchInterval is how often --watch-config looks at the file.
const watchInterval = time.Second

// reloadOn reloads after each of the signals, and with --watch-config after each
// change of the configuration file, until stop or the end of ctx.
func (s *severalServer) reloadOn(ctx context.Context, signals []os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	received := make(chan os.Signal, 1)
	if len(signals) > 0 {
		signal.Notify(received, signals...)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(watchInterval)
		defer look.Stop()
		seen := s.current.version
		for {
			select {
			case <-ctx.Done():
				return
			case <-received:
			case <-look.C:
				version := fileVersion(s.current.config)
				if !s.current.watchConfig || version == seen {
					continue
				}
				seen = version
			}
			s.reload()
		}
	}()
	return func() { signal.Stop(received); cancel(); <-done }
}

// fileVersion returns what changes when a file is replaced or written.
func fileVersion(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.ModTime().UnixNano(), info.Size())
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
		err = errors.New("one model instead of several needs a restart of the service")
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
	if err := s.credentials.Replace(next.credentialFiles()); err != nil {
		fail(err)
		return
	}
	changes, err := s.pool.Configure(checked.pool)
	if err != nil {
		fail(err)
		return
	}
	for _, key := range []string{"listen", "cors-origin", "drain", "min-residency", "usage-file"} {
		if was, is := s.current.flags.Lookup(key).Value.String(), cmd.Flags().Lookup(key).Value.String(); was != is {
			s.log.Warn("a changed setting needs a restart of the service", "key", key)
		}
	}
	s.log.Info("settings reloaded", "models", len(checked.pool.Models), "changes", changes)
	next.flags = cmd.Flags()
	s.current = next
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
