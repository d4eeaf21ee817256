package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/metrics"
	"forge.lthn.ai/core/go-rocm/internal/sdnotify"
	"forge.lthn.ai/core/go-rocm/runtime/machine"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// serveFlags are the flags of serve.
type serveFlags struct {
	modelFlags
	config                  string
	listen, keyFile, alias  string
	pooling                 string
	tlsCert, tlsKey         string
	embeddings, reranking   bool
	slotDir                 string
	origins                 []string
	drain                   time.Duration
	noRestart, noPage, pull bool
	usageFile               string
	named                   []gateway.Key // of the configuration file

	severalFlags
	observeFlags

	flags         *pflag.FlagSet
	args          []string
	file          *configFile // nil without --config
	version       string      // of the file
	onCommandLine []string    // the keys that the command line sets
	several       bool        // models by name
	mistakes      []error     // in the file and the command line, that configure has found
	mistaken      []string    // the keys of the file whose values cannot be read
	noModel       bool        // the mistakes say that there is no model
}

func serveCommand() *cobra.Command {
	cmd, f := newServe()
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		model, err := f.configure(cmd, args)
		switch {
		case err != nil:
			return err
		case f.several:
			return serveSeveral(cmd, f)
		}
		return serve(cmd, model, f)
	}
	return cmd
}

// newServe returns the command with its flags, which are also the keys of a
// configuration file.
func newServe() (*cobra.Command, *serveFlags) {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve [MODEL]",
		Short: "serve a model, or several, to OpenAI clients",
		Long: `Loads MODEL (a GGUF file, or the reference of a pulled model) and answers OpenAI-compatible requests (chat completions,
completions, responses, embeddings, rerank) and requests in llama-server's own API
on 127.0.0.1:8080, or on the address of --listen. llama-server itself is reachable
through a private socket only. It is restarted when it crashes, and requests wait
for the restart.

llama-server inherits only the environment variables that "go-rocm help" describes,
and those that $` + supervise.EnvInherit + ` names.

The page /status of that address shows cards, models and requests in a browser.

Requests from other machines, and from web pages of other origins, need an API
key. Put the keys into a file, one per line, for --api-key-file, or one key into
$` + gateway.EnvAPIKey + `. "go-rocm config key" makes keys with limits, for a
configuration file. Without a key, serve does not listen on an address that
other machines can reach.

Requests are checked before llama-server sees them: endpoints, headers and fields
are allow-lists; bodies, grammars and schemas are limited in size and structure.
Requests wait for a slot in a queue that clients share; more are answered with
status 429.

A browser that opens the address shows llama.cpp's web page. Where the service has
API keys, it asks for one first, and keeps a cookie instead of the key.

With --models-dir, or with tables [models.NAME] in the configuration file, serve
offers several models. The field "model" of a request names one, which is loaded
when it is asked for and unloaded when another needs its memory. docs/serve.md lists
the keys of the tables. Without MODEL and --config, serve reads
` + defaultConfig + `, if it exists.

SIGHUP reloads the API keys and the certificate, and with several models the whole
configuration file. If serve runs in a terminal, SIGHUP stops it, because the
terminal was closed.

Nothing is downloaded unless --pull is set, which then pulls what the command line
and the configuration file name, before anything is served. --pull is no key of the
file: the systemd service reaches this machine only.

--config reads the model and the flags below from a TOML file. Flags on the command
line take precedence. "go-rocm config default" prints such a file.

Under systemd, serve reports readiness and status, and feeds the watchdog
(Type=notify, WatchdogSec=).`,
		Example: `  go-rocm serve qwen3-8b-q4_k_m.gguf
  go-rocm serve model.gguf --listen 0.0.0.0:8080 --api-key-file keys
  go-rocm serve --models-dir /srv/models --idle-unload 15m
  go-rocm serve --pull hf:Qwen/Qwen3-8B-GGUF:Q4_K_M
  curl http://127.0.0.1:8080/v1/chat/completions -d '{"messages":[{"role":"user","content":"Hello"}]}'`,
		Args: cobra.MaximumNArgs(1),
	}
	f.register(cmd.Flags())
	fs := cmd.Flags()
	fs.StringVar(&f.config, "config", "", "read the model and the flags from this TOML file")
	fs.BoolVar(&f.pull, "pull", false, "first pull the models that are named by reference and are not in the store")
	fs.StringVar(&f.listen, "listen", "127.0.0.1:8080", "address to listen on: host:port, or unix:PATH")
	fs.StringVar(&f.keyFile, "api-key-file", "", "file with the API keys that clients must send, one per line")
	fs.StringVar(&f.usageFile, "usage-file", "", "keep the tokens that keys with tokens-per-day have used today in this file (default: used-tokens.json in $STATE_DIRECTORY, which systemd sets)")
	fs.StringArrayVar(&f.origins, "cors-origin", nil, "let web pages of this origin use the service, such as https://chat.example, or * for all (repeat it; default: pages of this machine, and all pages with an API key)")
	fs.StringVar(&f.alias, "alias", "", "name of the model in the API (default: the file's name)")
	fs.StringVar(&f.tlsCert, "tls-cert", "", "serve HTTPS with the certificate in this PEM file")
	fs.StringVar(&f.tlsKey, "tls-key", "", "PEM file with the certificate's private key")
	fs.BoolVar(&f.embeddings, "embeddings", false, "serve embeddings only (for embedding models)")
	fs.BoolVar(&f.reranking, "reranking", false, "serve reranking only (for reranking models)")
	fs.StringVar(&f.pooling, "pooling", "", "pooling of embeddings: mean, cls, last, rank (default: the model's)")
	fs.StringVar(&f.slotDir, "slot-dir", "", "let clients save and restore slots in this directory")
	fs.DurationVar(&f.drain, "drain", 20*time.Second, "time to let running requests finish on shutdown")
	fs.BoolVar(&f.noPage, "no-page", false, "offer no web page, also not /status, and no way to sign in with a browser")
	fs.BoolVar(&f.noRestart, "no-restart", false, "exit when llama-server exits, instead of restarting it")
	f.registerSeveral(fs)
	f.registerObserve(fs)
	return cmd, f
}

// configure reads the configuration file, if any, into the flags. It returns the
// model, or sets several. What is wrong becomes one of the mistakes, so that prepare and
// prepareSeveral report everything at once; the error is only about a file that cannot be
// read, and about a command line that names nothing to serve.
func (f *serveFlags) configure(cmd *cobra.Command, args []string) (model string, err error) {
	f.flags, f.args = cmd.Flags(), args
	if f.config == "" && len(args) == 0 && f.modelsDir == "" {
		if _, err := os.Stat(defaultConfig); err == nil {
			f.config = defaultConfig
		}
	}
	if f.config != "" {
		if model, err = f.readFile(); err != nil {
			return "", err
		}
	}
	f.several = f.modelsDir != "" || len(f.file.tablesOf(modelsTable)) > 0
	if len(args) > 0 {
		model = args[0]
	}
	switch {
	case f.several:
		if model != "" {
			f.mistakes = append(f.mistakes, f.excludeModel(args))
		}
		return "", nil
	case model != "":
		f.addProjector(model)
	case f.config == "":
		return "", fmt.Errorf("%w: serve: name a model, a directory with --models-dir, or a configuration file with --config", errUsage)
	case !slices.Contains(f.mistaken, modelKey):
		f.mistakes = append(f.mistakes, f.file.errorf(modelKey, `model is empty: set it to the path of a GGUF file, for example model = "/var/lib/go-rocm/models/model.gguf"; or set models-dir, or write tables [models.NAME]`))
	}
	f.noModel = model == ""
	f.mistakes = append(f.mistakes, f.checkSingle()...)
	return model, nil
}

// readFile reads the configuration file and returns its model.
func (f *serveFlags) readFile() (model string, err error) {
	f.version = fileVersion(f.config)
	if f.file, err = readConfig(f.config); err != nil {
		return "", err
	}
	f.flags.Visit(func(flag *pflag.Flag) { f.onCommandLine = append(f.onCommandLine, flag.Name) })
	if len(f.args) > 0 {
		f.onCommandLine = append(f.onCommandLine, modelKey)
	}
	model, err = applyConfig(f.flags, f.file, configKeys(f.flags), nil)
	f.mistaken = f.file.mistakenKeys(err)
	var keysErr error
	if f.named, keysErr = f.file.namedKeys(); keysErr != nil {
		f.mistaken = append(f.mistaken, keysTable)
	}
	f.mistakes = append(f.mistakes, err, keysErr)
	return model, nil
}

func serve(cmd *cobra.Command, path string, f *serveFlags) error {
	log := serveLogger(cmd)
	notifier := sdnotify.FromEnv(os.Getenv, log)
	stops, reloads := onSIGHUP(hasTerminal())
	ctx, stop := signal.NotifyContext(cmd.Context(), append(stops, os.Interrupt, syscall.SIGTERM)...)
	defer stop()
	settings := f.serverSettings(cmd, log, notifier)
	var loaded atomic.Pointer[rocm.Server]
	name := f.singleName(path)
	observed := f.newObserver(log, func() []metrics.Model { return singleMetrics(name, loaded.Load()) })
	settings.OnEvent = observed.events(name, settings.OnEvent)
	var checked *service
	err := f.pullMissing(ctx, cmd, path, settings, notifier)
	if err == nil {
		checked, err = f.prepare(ctx, path, settings)
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil // stopped by a signal
		}
		return err
	}
	if err := f.openAccessLog(observed, cmd); err != nil {
		return errors.Join(err, checked.close())
	}
	credentials := checked.credentials
	defer credentials.ReloadOn(reloads, f.readNamedKeys)()

	l, err := gateway.Listen(ctx, f.listen, credentials)
	if err != nil {
		return errors.Join(err, checked.close())
	}
	stopObserving, err := observed.start(ctx, reloads)
	if err != nil {
		return errors.Join(err, l.Close(), checked.close())
	}
	defer stopObserving()
	page := f.page(log)
	handler := gateway.New(observed.options(gateway.Options{
		Credentials: credentials, Origins: f.origins, Log: log, UsageFile: f.usagePath(), Page: page, NoStatusPage: f.noPage,
		Restart: func(string) { killServer(loaded.Load()) },
	}))
	defer handler.Close()
	srv := newHTTPServer(handler, log)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	defer func() { _ = srv.Close() }()

	status := rocm.ModelStatus{
		Name: name, ChatTemplate: checked.model.Header.ChatTemplate() != "" || settings.ChatTemplateFile != "",
		Embeddings: settings.Embeddings, Reranking: settings.Reranking,
	}
	server, err := checked.model.Start(ctx)
	if err != nil {
		notifyStopping(notifier, 0)
		if ctx.Err() != nil {
			return nil // stopped by a signal while loading
		}
		return err
	}
	loaded.Store(server)
	status.Path, status.Why, status.Context = server.Path, server.Plan.Reasons, server.Plan.Context
	handler.SetModel(status, server.Child, server.Plan.Slots)
	notifier.Ready("serving " + server.Path)
	url := gateway.URL(l, credentials)
	log.Info("serving", "model", server.Path, "address", url, "bundle", server.BundleDir)
	_, _ = fmt.Fprintf(stdout(cmd), "serving %s on %s\n", server.Path, url)
	printPage(cmd, page, url)
	defer notifier.Watchdog(func() bool { return !server.Child.State().Final() })()

	var failure error
	select {
	case <-ctx.Done():
	case <-server.Child.Done():
		failure = server.Child.Err()
	case err := <-served:
		failure = fmt.Errorf("serve on %s: %w", f.listen, err)
	}
	stop() // a second signal kills the program
	notifyStopping(notifier, f.drain)
	return errors.Join(failure, shutdown(srv, server, f.drain))
}

// singleName returns the name of the only model: the alias, or that of its file. A
// reference of a pulled model is its own name.
func (f *serveFlags) singleName(path string) string { return cmp.Or(f.alias, filepath.Base(path)) }

func newHTTPServer(handler *gateway.Gateway, log *slog.Logger) *http.Server {
	srv := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	srv.RegisterOnShutdown(handler.Shutdown)
	return srv
}

// killServer kills llama-server, which the supervisor then restarts.
func killServer(server *rocm.Server) {
	if server == nil {
		return
	}
	if p, err := os.FindProcess(server.Child.Pid()); err == nil && p.Pid > 0 {
		_ = p.Kill()
	}
}

// checkPooling reports an embedding server that could not serve embeddings: a model
// that was not made for them has no pooling of its own (llama.cpp then takes none),
// and llama-server answers each request of OpenAI's API with status 400.
func (f *serveFlags) checkPooling(path string) error {
	if !f.embeddings || f.reranking || f.pooling != "" || slices.ContainsFunc(f.serverArgs, func(arg string) bool { return strings.HasPrefix(arg, "--pooling") }) {
		return nil
	}
	_, model, err := machine.OpenModel(path)
	if err != nil {
		return nil // preparing the model reports it
	}
	defer func() { _ = model.Close() }()
	if kind, ok := model.ArchUint("pooling_type"); ok && kind != 0 {
		return nil
	}
	return &keyError{"embeddings", errors.New("the model has no pooling of its own, so that it cannot serve embeddings; set --pooling to mean, cls or last, or to none for one vector a token on /embedding")}
}

// shutdown lets running requests finish, for at most drain, and stops
// llama-server.
func shutdown(srv *http.Server, server *rocm.Server, drain time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		_ = srv.Close() // drain has passed
	}
	return server.Close()
}

func (f *serveFlags) serverSettings(cmd *cobra.Command, log *slog.Logger, notifier *sdnotify.Notifier) rocm.Settings {
	s := f.modelSettings(cmd, log)
	newProgressLine(cmd).attach(&s)
	draw := s.OnEvent
	s.OnEvent = func(e supervise.Event) {
		draw(e)
		notifyState(notifier, e)
	}
	return s
}

// modelSettings returns the settings of a model that is served.
func (f *serveFlags) modelSettings(cmd *cobra.Command, log *slog.Logger) rocm.Settings {
	s := f.settings(cmd)
	s.Log, s.Alias, s.Embeddings, s.Reranking, s.SlotDir = log, f.alias, f.embeddings, f.reranking, f.slotDir
	s.Pooling = f.pooling
	s.Restart.Disabled, s.Restart.IgnoreRequestFailures = f.noRestart, true
	s.Metrics = true      // /metrics has those of llama-server, too
	s.Timeouts.Drain = -1 // the HTTP server drains
	return s
}

const (
	// loadTimeout is how long systemd waits for the next sign of progress while
	// the model loads.
	loadTimeout = time.Minute
	// stopMargin is how long a shutdown takes at most, in addition to running
	// requests: llama-server exits or is killed, and the driver frees its memory.
	stopMargin = supervise.DefaultStopTimeout + 10*time.Second
)

// notifyState reports a change of llama-server's state to systemd.
func notifyState(n *sdnotify.Notifier, e supervise.Event) {
	switch e.To {
	case supervise.Starting:
		n.Status("starting llama-server")
	case supervise.Loading:
		n.Progress(fmt.Sprintf("loading the model, %.0f %%", 100*e.Progress), loadTimeout)
	case supervise.Ready:
		n.Status("ready")
	case supervise.Stalled:
		n.Status("llama-server is stalled")
	case supervise.Failed:
		n.Status("llama-server failed")
	case supervise.Stopped, supervise.Stopping:
	}
}

// notifyStopping reports a shutdown that lets requests run for drain.
func notifyStopping(n *sdnotify.Notifier, drain time.Duration) {
	n.Stopping("shutting down", max(drain, 0)+stopMargin)
}

// serveLogger also logs changes of state, for a service's journal.
func serveLogger(cmd *cobra.Command) *slog.Logger {
	return loggerAt(cmd, slog.LevelInfo)
}
