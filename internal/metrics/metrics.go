// Package metrics counts what a service does, for Prometheus.
//
// [Metrics] implements the gateway's interface of the same name: it counts requests
// as they end. [Metrics.Events] counts what the supervisor of a model reports. What is
// a state and no count (models, cards, requests that run) is read when somebody asks
// for the metrics, see state.go; so are the metrics of the models' llama-servers, see
// children.go.
//
// No label has a value that a client chooses: models, keys and routes are those of the
// settings and of the gateway's table, or empty.
package metrics

import (
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// namespace begins the names of all metrics of the service.
const namespace = "gorocm"

// Options are what metrics are read from. A nil function means that there is none.
type Options struct {
	// Version is that of the program.
	Version string
	// Models returns the models.
	Models func() []Model
	// Cards returns the GPUs as the sampler has read them last.
	Cards func() []activity.Card
	// Requests returns the requests that run.
	Requests func() []activity.Record
	Log      *slog.Logger
}

// Model is a model of the service at one moment.
type Model struct {
	// Name is the model's name, State and Process what it and its llama-server do.
	Name    string
	State   string
	Process supervise.State
	// Child is its llama-server; nil: none that can be asked.
	Child Child
}

// Metrics counts requests and events. Its methods may be called from any goroutine.
type Metrics struct {
	handler http.Handler

	requests, outcomes                       *prometheus.CounterVec
	promptTokens, cachedTokens, outputTokens *prometheus.CounterVec
	wait, firstToken, duration, gap          *prometheus.HistogramVec

	loads, unloads, restarts, stalls *prometheus.CounterVec
	loadTime                         *prometheus.HistogramVec
}

// firstTokenBuckets reach from a small model with a cached prompt to a large one that
// reads a long prompt on a CPU, gapBuckets from 1000 tokens a second to one in four
// seconds, waitBuckets from a free slot to gateway.Limits.LoadWait.
func firstTokenBuckets() []float64 {
	return []float64{0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
}

func gapBuckets() []float64 { return prometheus.ExponentialBuckets(0.001, 2, 13) }

func waitBuckets() []float64 {
	return []float64{0.001, 0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600}
}

// New returns metrics with a registry of their own.
func New(o Options) (*Metrics, *prometheus.Registry) {
	registry := prometheus.NewRegistry()
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
		registry.MustRegister(v)
		return v
	}
	m := &Metrics{
		requests:     counter("requests_total", "Requests that have ended, by model, route, name of the key and HTTP status.", "model", "route", "key", "code"),
		outcomes:     counter("request_outcomes_total", "Requests that needed a slot and have ended, by how they ended.", "model", "outcome"),
		promptTokens: counter("prompt_tokens_total", "Tokens of prompts, including cached ones.", "model", "key"),
		cachedTokens: counter("cached_prompt_tokens_total", "Tokens of prompts that were computed for an earlier request.", "model", "key"),
		outputTokens: counter("generated_tokens_total", "Tokens that were generated.", "model", "key"),
		wait:         histogram("request_wait_seconds", "Time that requests waited for their model and a slot.", waitBuckets(), "model"),
		firstToken:   histogram("time_to_first_token_seconds", "Time from the arrival of a request to the first token of its answer.", firstTokenBuckets(), "model"),
		gap:          histogram("time_between_tokens_seconds", "Time between two pieces of a stream, which are tokens except with speculative decoding.", gapBuckets(), "model"),
		duration:     histogram("request_duration_seconds", "Time from the arrival of a request that needed a slot to its end.", firstTokenBuckets(), "model"),
		loads:        counter("model_loads_total", "Loads of a model that have ended, by their result: ok, or the kind of the error.", "model", "result"),
		loadTime:     histogram("model_load_duration_seconds", "Time that a successful load took.", firstTokenBuckets(), "model"),
		unloads:      counter("model_unloads_total", "Unloads of a model by their cause: room and others are evictions, for another model and for other programs.", "model", "cause"),
		restarts:     counter("model_restarts_total", "Restarts of a model's llama-server by the kind of the error that ended it.", "model", "cause"),
		stalls:       counter("model_stalls_total", "Times that a model's llama-server computed without a token for too long.", "model"),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: namespace, Name: "build_info", Help: "The version of the service; the value is 1.", ConstLabels: prometheus.Labels{"version": o.Version},
	})
	info.Set(1)
	registry.MustRegister(
		info, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newState(o), newChildren(o),
	)
	var failures promhttp.Logger
	if o.Log != nil {
		failures = slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn)
	}
	m.handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: failures, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4,
	})
	return m, registry
}

// ServeHTTP answers with the metrics in a format that Prometheus reads.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.handler.ServeHTTP(w, r) }

// Request counts a request that has ended.
func (m *Metrics) Request(r *activity.Record) {
	m.requests.WithLabelValues(r.Model, r.Route, r.Key, strconv.Itoa(r.Status)).Inc()
	if r.Seq == 0 {
		return // it needs no slot
	}
	m.outcomes.WithLabelValues(r.Model, string(r.Outcome)).Inc()
	m.duration.WithLabelValues(r.Model).Observe(r.Seconds)
	m.wait.WithLabelValues(r.Model).Observe(r.WaitSeconds)
	if r.FirstTokenSeconds > 0 {
		m.firstToken.WithLabelValues(r.Model).Observe(r.FirstTokenSeconds)
	}
	m.promptTokens.WithLabelValues(r.Model, r.Key).Add(float64(r.PromptTokens))
	m.cachedTokens.WithLabelValues(r.Model, r.Key).Add(float64(r.CachedTokens))
	m.outputTokens.WithLabelValues(r.Model, r.Key).Add(float64(r.GeneratedTokens))
}

// Gap returns the function that observes the time between two pieces of a stream.
func (m *Metrics) Gap(model string) func(seconds float64) {
	return m.gap.WithLabelValues(model).Observe
}

// Unloaded counts an unload of a model.
func (m *Metrics) Unloaded(model, cause string) { m.unloads.WithLabelValues(model, cause).Inc() }

// Events returns a function that counts what the supervisor of a model reports. It is
// supervise.Spec.OnEvent, which is called from one goroutine.
func (m *Metrics) Events(model string) func(supervise.Event) {
	var started time.Time
	return func(e supervise.Event) {
		switch {
		case e.From == e.To: // progress
		case e.To == supervise.Starting && e.Cause != nil:
			m.restarts.WithLabelValues(model, Kind(e.Cause)).Inc()
		case e.To == supervise.Starting:
			started = e.Time
		case e.To == supervise.Ready && e.Attempt == 1 && e.From != supervise.Stalled:
			m.loads.WithLabelValues(model, "ok").Inc()
			if !started.IsZero() {
				m.loadTime.WithLabelValues(model).Observe(e.Time.Sub(started).Seconds())
			}
		case e.To == supervise.Stalled:
			m.stalls.WithLabelValues(model).Inc()
		case e.To == supervise.Failed:
			m.loads.WithLabelValues(model, Kind(e.Cause)).Inc()
		}
	}
}
