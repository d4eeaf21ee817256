package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// serveFlags are the flags of serve beside those of the model.
type serveFlags struct {
	modelFlags
	config                 string
	listen, keyFile, alias string
	pooling                string
	tlsCert, tlsKey        string
	embeddings, reranking  bool
	slotDir                string
	drain                  time.Duration
	noRestart              bool
}

func serveCommand() *cobra.Command {
	cmd, f := newServe()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		model, err := f.configure(cmd, args)
		if err != nil {
			return err
		}
		return serve(cmd, model, f)
	}
	return cmd
}

// newServe is the command with its flags, which are also the keys of a settings
// file.
func newServe() (*cobra.Command, *serveFlags) {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve [MODEL]",
		Short: "serve a model to OpenAI clients",
		Long: `Loads MODEL and answers OpenAI-compatible requests (chat completions,
completions, responses, embeddings, rerank), and llama-server's own, on
127.0.0.1:8080 or where --listen says. llama-server itself is reached through a
private socket only, and is started again when it dies; requests wait for it.

Without an API key only this machine may ask. Put one key a line into a file for
--api-key-file, or one into $` + envAPIKey + `. An address that others reach is
refused without a key.

SIGHUP has it read the files of keys and of the certificate again, and nothing
else. Where it was started in a terminal, SIGHUP ends it: the terminal was closed.

--config reads the model and any of the flags below from a TOML file; what is
given on the command line goes before it. See "go-rocm config default".

Under systemd it tells readiness, its state and that it is alive (Type=notify,
WatchdogSec=).`,
		Example: `  go-rocm serve qwen3-8b-q4_k_m.gguf
  go-rocm serve model.gguf --listen 0.0.0.0:8080 --api-key-file keys
  curl http://127.0.0.1:8080/v1/chat/completions -d '{"messages":[{"role":"user","content":"Hello"}]}'`,
		Args: cobra.MaximumNArgs(1),
	}
	f.register(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVar(&f.config, "config", "", "read the model and flags from this TOML file")
	fs.StringVar(&f.listen, "listen", "127.0.0.1:8080", "where to listen: host:port, or unix:PATH")
	fs.StringVar(&f.keyFile, "api-key-file", "", "file with the keys that clients must give, one a line")
	fs.StringVar(&f.alias, "alias", "", "the model's name in answers (default: the file's name)")
	fs.StringVar(&f.tlsCert, "tls-cert", "", "serve TLS with this PEM certificate")
	fs.StringVar(&f.tlsKey, "tls-key", "", "the certificate's PEM key")
	fs.BoolVar(&f.embeddings, "embeddings", false, "serve embeddings alone (for embedding models)")
	fs.BoolVar(&f.reranking, "reranking", false, "serve reranking alone (for reranking models)")
	fs.StringVar(&f.pooling, "pooling", "", "how a text's vectors become one: mean, cls, last, rank (default: as the model says)")
	fs.StringVar(&f.slotDir, "slot-dir", "", "let clients save and restore slots in this folder")
	fs.DurationVar(&f.drain, "drain", 20*time.Second, "how long running requests may take when it is to end")
	fs.BoolVar(&f.noRestart, "no-restart", false, "end when llama-server dies")
	return cmd, f
}

// configure takes what the settings file gives, if there is one, and returns
// the model.
func (f *serveFlags) configure(cmd *cobra.Command, args []string) (string, error) {
	model := ""
	if f.config != "" {
		c, err := readConfig(f.config)
		if err != nil {
			return "", err
		}
		if model, err = applyConfig(cmd.Flags(), c); err != nil {
			return "", err
		}
		if len(args) == 0 && model == "" {
			return "", c.problem(modelKey, `model is empty: set it to the path of a GGUF file, for example model = "/var/lib/go-rocm/models/model.gguf"`)
		}
	}
	if len(args) > 0 {
		model = args[0]
	}
	if model == "" {
		return "", fmt.Errorf("%w: serve: give a model, or a settings file with --config", errUsage)
	}
	return model, nil
}

func serve(cmd *cobra.Command, path string, f *serveFlags) error {
	log := serveLogger(cmd)
	keeper := &keeper{f: f, log: log}
	if err := keeper.load(); err != nil {
		return err
	}
	note := newNotifier(os.Getenv("NOTIFY_SOCKET"), log)
	ends, reloads := hangup(hasTerminal())
	ctx, stop := signal.NotifyContext(cmd.Context(), append(ends, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	defer keeper.reloadOn(reloads)()

	l, err := listen(ctx, f.listen, keeper)
	if err != nil {
		return err
	}
	door := newDoor(keeper, log)
	srv := &http.Server{
		Handler: door, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { _ = srv.Close() }()

	settings := f.serverSettings(cmd, log, note)
	back, err := rocm.Launch(ctx, path, settings)
	if err != nil {
		note.stopping(0)
		if ctx.Err() != nil {
			return nil // asked to end while loading
		}
		return err
	}
	door.open(back)
	note.tell("READY=1\nSTATUS=serving " + back.Path)
	log.Info("serving", "model", back.Path, "address", l.Addr().String(), "bundle", back.BundleDir)
	_, _ = fmt.Fprintf(cmd.OutOrStdout(), "serving %s on %s\n", back.Path, address(f, l))
	stopWatchdog := note.watchdog(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), back.Child.State)
	defer stopWatchdog()

	var failure error
	select {
	case <-ctx.Done():
	case <-back.Child.Done():
		failure = back.Child.Err()
	case err := <-served:
		failure = fmt.Errorf("serve on %s: %w", f.listen, err)
	}
	stop() // a second signal ends it at once
	note.stopping(f.drain)
	return errors.Join(failure, wind(srv, back, f.drain))
}

// wind lets running requests end and stops llama-server.
func wind(srv *http.Server, back *rocm.Server, drain time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // their time is over
	}
	return back.Close()
}

func (f *serveFlags) serverSettings(cmd *cobra.Command, log *slog.Logger, note *notifier) rocm.Settings {
	s := f.settings(cmd)
	s.Log, s.Alias, s.Embeddings, s.Reranking, s.SlotDir = log, f.alias, f.embeddings, f.reranking, f.slotDir
	s.Pooling = f.pooling
	if !f.noRestart {
		s.Restart = supervise.RestartOnFailure()
	}
	s.DrainTimeout = -1 // the listener drains
	line := newProgressLine(cmd)
	line.attach(&s)
	draw := s.Loading
	s.Loading = func(e supervise.Event) {
		draw(e)
		note.state(e)
	}
	return s
}

// serveLogger tells changes of state too: a service's journal is read afterwards.
func serveLogger(cmd *cobra.Command) *slog.Logger {
	level := slog.LevelInfo
	if verbose, err := cmd.Flags().GetBool("verbose"); err == nil && verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}
