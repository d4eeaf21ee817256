package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/internal/metrics"
	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// observeFlags are the flags of serve about what it shows of itself.
type observeFlags struct {
	metricsListen, accessLog string
	activity, capture        int
}

func (f *observeFlags) registerObserve(fs *pflag.FlagSet) {
	fs.StringVar(&f.metricsListen, "metrics-listen", "", "answer /metrics also on this address, without a key: host:port, or unix:PATH. Who reaches it sees the names of models and keys")
	fs.StringVar(&f.accessLog, "access-log", "", "append a line of JSON for each request to this file, or write it to standard output (-); without bodies and keys")
	fs.IntVar(&f.activity, "activity", activity.DefaultSize, "number of ended requests that /activity and \"go-rocm top\" show")
	fs.IntVar(&f.capture, "capture", 0, "keep the bodies of this many requests and answers in memory, and show them in /activity to keys without limits")
}

// observeKeys lists those flags.
func observeKeys() []string {
	return []string{"metrics-listen", "access-log", "activity", "capture"}
}

// maxActivity and maxCapture limit the memory of the activity: a body has up to 128 KiB.
const maxActivity, maxCapture = 100_000, 1000

// checkObserve reports what is wrong with the flags.
func (f *observeFlags) checkObserve() error {
	var errs []error
	invalid := func(key, format string, args ...any) {
		errs = append(errs, &keyError{key, fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))})
	}
	if f.metricsListen != "" {
		if _, err := gateway.IsLocal(f.metricsListen); err != nil {
			invalid("metrics-listen", "%w", err)
		} else if err := gateway.CheckSocket(f.metricsListen); err != nil {
			errs = append(errs, &keyError{"metrics-listen", err})
		}
	}
	if f.accessLog != "" && f.accessLog != "-" {
		if err := checkAccessLog(f.accessLog); err != nil {
			errs = append(errs, &keyError{"access-log", err})
		}
	}
	if f.activity < 0 || f.activity > maxActivity {
		invalid("activity", "%d is not a number from 0 to %d", f.activity, maxActivity)
	}
	if f.capture < 0 || f.capture > maxCapture {
		invalid("capture", "%d is not a number from 0 to %d", f.capture, maxCapture)
	}
	return errors.Join(errs...)
}

// observer has what a service shows of itself: its activity, its metrics and its
// access log.
type observer struct {
	log     *slog.Logger
	listen  string
	access  *accessLog // nil: none
	store   *activity.Log
	sampler *activity.Sampler
	metrics *metrics.Metrics
	models  func() []metrics.Model
	running sync.WaitGroup
}

// newObserver returns an observer without an access log. models returns the models.
func (f *serveFlags) newObserver(log *slog.Logger, models func() []metrics.Model) *observer {
	size := f.activity
	if size == 0 {
		size = -1 // none; activity.Options has a default for 0
	}
	o := &observer{log: log, listen: f.metricsListen, store: activity.NewLog(activity.Options{Size: size, Capture: f.capture}), models: models}
	if f.capture > 0 {
		log.Warn("the bodies of requests and answers are kept in memory and shown in /activity", "bodies", f.capture)
	}
	o.sampler = activity.NewSampler(o.store, o.readCards, activity.SampleInterval, activity.SamplesKept)
	o.metrics, _ = metrics.New(metrics.Options{
		Version: programVersion(), Models: models, Log: log,
		Cards:    func() []activity.Card { last, _, _ := o.sampler.Latest(); return last.Cards },
		Requests: func() []activity.Record { return o.store.Snapshot(func(*activity.Record) bool { return true }).Running },
	})
	return o
}

// openAccessLog opens the access log, if there is one.
func (f *serveFlags) openAccessLog(o *observer, cmd *cobra.Command) (err error) {
	if f.accessLog == "" {
		return nil
	}
	if o.access, err = openAccessLog(f.accessLog, cmd, o.log); err != nil {
		return f.locate(&keyError{"access-log", err})
	}
	return nil
}

// programVersion returns the version of this program, as the build recorded it.
func programVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}

// options adds the observer to the options of a gateway.
func (o *observer) options(g gateway.Options) gateway.Options {
	g.Activity, g.Sampler, g.Metrics = o.store, o.sampler, o.metrics
	if o.access != nil {
		g.AccessLog = o.access.write
	}
	return g
}

// start samples, and answers on --metrics-listen, until stop is called.
func (o *observer) start(ctx context.Context, reloads []os.Signal) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	stopMetrics := func() {}
	if o.listen != "" {
		if stopMetrics, err = o.serveMetrics(ctx); err != nil {
			cancel()
			return nil, err
		}
	}
	o.running.Go(func() { o.sampler.Run(ctx) })
	stopReopen := func() {}
	if o.access != nil {
		stopReopen = o.access.reopenOn(reloads)
	}
	return func() {
		stopMetrics()
		cancel()
		o.running.Wait()
		stopReopen()
	}, nil
}

// serveMetrics answers GET /metrics on an address of its own.
func (o *observer) serveMetrics(ctx context.Context) (stop func(), err error) {
	l, err := gateway.ListenPlain(ctx, o.listen)
	if err != nil {
		return nil, fmt.Errorf("metrics: listen on %s: %w; choose another address with --metrics-listen", o.listen, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.metrics)
	srv := &http.Server{
		Handler: gateway.RejectPages(o.listen, mux), ReadHeaderTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
	}
	o.running.Go(func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			o.log.Error("the metrics are no longer served", "cause", err.Error())
		}
	})
	o.log.Info("serving metrics without a key", "address", l.Addr().String())
	return func() { _ = srv.Close() }, nil
}

// attach adds the counters of the models' events to the settings of a pool. A nil
// observer adds nothing.
func (o *observer) attach(s *rocm.PoolSettings) {
	if o == nil {
		return
	}
	s.OnUnload = func(model string, cause scheduler.UnloadCause) { o.metrics.Unloaded(model, string(cause)) }
	for name, m := range s.Models {
		m.OnEvent = o.events(name, m.OnEvent)
		s.Models[name] = m
	}
}

// events returns a function that counts the events of a model, and calls next, which
// may be nil.
func (o *observer) events(name string, next func(supervise.Event)) func(supervise.Event) {
	count := o.metrics.Events(name)
	return func(e supervise.Event) {
		count(e)
		if next != nil {
			next(e)
		}
	}
}

// readCards returns the cards of this machine, with the memory that the models hold.
func (o *observer) readCards() []activity.Card {
	fs := gpu.NewFS("/")
	all, _ := fs.Cards() // what can be read
	devices := slices.DeleteFunc(all, func(d gpu.Device) bool { return d.VRAMTotal == 0 })
	if len(devices) == 0 {
		return nil
	}
	ours := map[string]uint64{}
	for _, m := range o.models() {
		if child, ok := m.Child.(*supervise.Child); ok && child.Pid() > 0 {
			for pci, n := range fs.ProcessMemory(child.Pid(), devices) {
				ours[pci] += n
			}
		}
	}
	var cards []activity.Card
	for _, d := range devices {
		cards = append(cards, activity.Card{
			PCI: d.PCI, Name: d.Name, Total: d.VRAMTotal, Used: d.VRAMUsed, Ours: min(ours[d.PCI], d.VRAMUsed), Known: d.MemoryKnown, Sensors: d.Sensors,
		})
	}
	return cards
}

// poolMetrics returns the models of a pool for the metrics.
func poolMetrics(pool *rocm.Pool) []metrics.Model {
	var list []metrics.Model
	for _, s := range pool.List() {
		m := metrics.Model{Name: s.Name, State: string(s.State), Process: s.Process}
		if child, ok := pool.Child(s.Name); ok {
			m.Child = child
		}
		list = append(list, m)
	}
	return list
}

// singleMetrics returns the only model of a service; server is nil while it loads.
func singleMetrics(name string, server *rocm.Server) []metrics.Model {
	if server == nil {
		return []metrics.Model{{Name: name, State: string(rocm.ModelLoading), Process: supervise.Starting}}
	}
	m := metrics.Model{Name: name, State: string(rocm.ModelLoaded), Process: server.Child.State(), Child: server.Child}
	if m.Process.Final() {
		m.State = string(rocm.ModelFailed)
	}
	return []metrics.Model{m}
}

// accessLog writes a line of JSON for each request that has ended.
type accessLog struct {
	path string // "-": standard output
	log  *slog.Logger

	mu     sync.Mutex
	out    io.Writer
	file   *os.File // nil for standard output
	failed bool     // the last write failed, and that is logged
}

func openAccessLog(path string, cmd *cobra.Command, log *slog.Logger) (*accessLog, error) {
	a := &accessLog{path: path, log: log, out: cmd.OutOrStdout()}
	return a, a.open()
}

// checkAccessLog reports why a file cannot be an access log. A FIFO would block the
// start until somebody reads it, and requests as long as nobody does.
func checkAccessLog(path string) error {
	err := regfile.CheckAppend(path)
	if errors.Is(err, regfile.ErrNotRegular) {
		text := strings.TrimSuffix(err.Error(), ": "+regfile.ErrNotRegular.Error())
		return fmt.Errorf("%s; name a regular file, or - for standard output", text)
	}
	return err
}

// open opens the file, and then closes the one before: another program may have
// renamed it.
func (a *accessLog) open() error {
	if a.path == "-" {
		return nil
	}
	if err := checkAccessLog(a.path); err != nil {
		return err
	}
	// What is written after the new file can be seen is written to it. The file may have
	// been replaced by a FIFO in the meantime.
	a.mu.Lock()
	before := a.file
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY|syscall.O_NONBLOCK, 0o640) //nolint:gosec // a group may read the log
	if err == nil {
		a.file, a.out = f, f
	}
	a.mu.Unlock()
	if err != nil {
		return err
	}
	if before != nil {
		_ = before.Close()
	}
	return nil
}

// write appends a record. It is gateway.Options.AccessLog.
func (a *accessLog) write(r *activity.Record) {
	line, err := json.Marshal(r)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		_, err = a.out.Write(append(line, '\n'))
	}
	if err != nil && !a.failed {
		a.log.Error("the access log cannot be written", "path", a.path, "cause", err.Error())
	}
	a.failed = err != nil
}

// reopenOn opens the file again at each of the signals, until stop is called, which
// closes the file.
func (a *accessLog) reopenOn(signals []os.Signal) (stop func()) {
	received := make(chan os.Signal, 1)
	if len(signals) > 0 {
		signal.Notify(received, signals...)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for range received {
			if err := a.open(); err != nil {
				a.log.Error("the access log cannot be opened again; the previous file remains in use", "path", a.path, "cause", err.Error())
			}
		}
	})
	return func() {
		signal.Stop(received)
		close(received)
		done.Wait()
		if a.file != nil {
			_ = a.file.Close()
		}
	}
}
