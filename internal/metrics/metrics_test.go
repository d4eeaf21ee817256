package metrics

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// fakeChild is a llama-server within the test's process.
type fakeChild struct {
	srv   *httptest.Server
	state supervise.State
}

func (c *fakeChild) BaseURL() string          { return c.srv.URL }
func (c *fakeChild) HTTPClient() *http.Client { return c.srv.Client() }
func (c *fakeChild) State() supervise.State   { return c.state }

// childMetrics is an answer of llama-server v0.5.0, with a metric that is not its own.
const childMetrics = `# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 42
# HELP llamacpp:requests_processing Number of requests processing.
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 1
# HELP other_total Not llama-server's.
# TYPE other_total counter
other_total 1
`

func newChild(t *testing.T, state supervise.State, h http.HandlerFunc) *fakeChild {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return &fakeChild{srv, state}
}

func answerMetrics(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, childMetrics) }

// filled returns metrics in which each of the service has a value.
func filled(t *testing.T) (*Metrics, Options) {
	t.Helper()
	ready := newChild(t, supervise.Ready, answerMetrics)
	asleep := newChild(t, supervise.Loading, func(http.ResponseWriter, *http.Request) { t.Error("a model that loads was asked") })
	o := Options{
		Version: "v1.2.3", Log: slog.New(slog.DiscardHandler),
		Models: func() []Model {
			return []Model{
				{Name: "qwen", State: "loaded", Process: supervise.Ready, Child: ready},
				{Name: "llama", State: "loading", Process: supervise.Loading, Child: asleep},
				{Name: "bge", State: "unloaded"},
			}
		},
		Cards: func() []activity.Card {
			return []activity.Card{{
				PCI: "0000:03:00.0", Name: "Radeon", Total: 1000, Used: 700, Ours: 500, Known: true,
				Sensors: gpu.Sensors{
					EdgeCelsius: 50, JunctionCelsius: 60, MemoryCelsius: 70, PowerWatts: 100, PowerCapWatts: 300, ShaderMHz: 2000, MemoryMHz: 1000,
					BusyPercent: 25, Throttled: []string{gpu.ThrottleTemperature},
				},
			}}
		},
		Requests: func() []activity.Record {
			return []activity.Record{{Model: "qwen", Stage: activity.Generating}, {Model: "qwen", Stage: activity.Waiting}}
		},
	}
	m, _ := New(o)
	m.Request(&activity.Record{
		Seq: 1, Model: "qwen", Route: "/v1/chat/completions", Key: "alice", Status: 200, Outcome: activity.OK,
		PromptTokens: 10, CachedTokens: 4, GeneratedTokens: 7, WaitSeconds: 0.2, FirstTokenSeconds: 0.7, Seconds: 3,
	})
	m.Request(&activity.Record{Route: "other", Status: 404, Outcome: activity.Rejected})
	m.Gap("qwen")(0.02)
	m.Unloaded("bge", "room")
	events := m.Events("qwen")
	started := time.Now()
	for _, e := range []supervise.Event{
		{Time: started, From: supervise.Stopped, To: supervise.Starting, Attempt: 1},
		{Time: started, From: supervise.Starting, To: supervise.Loading, Attempt: 1},
		{Time: started, From: supervise.Loading, To: supervise.Loading, Attempt: 1, Progress: 0.5},
		{Time: started.Add(4 * time.Second), From: supervise.Loading, To: supervise.Ready, Attempt: 1},
		{Time: started, From: supervise.Ready, To: supervise.Stalled, Attempt: 1},
		{Time: started, From: supervise.Stalled, To: supervise.Ready, Attempt: 1},
		{Time: started, From: supervise.Ready, To: supervise.Starting, Attempt: 1, Cause: &supervise.ExitError{Signal: syscall.SIGSEGV}},
		{Time: started, From: supervise.Starting, To: supervise.Ready, Attempt: 2},
		{Time: started, From: supervise.Ready, To: supervise.Failed, Attempt: 2, Cause: fmt.Errorf("%w: %w", supervise.ErrCrashLoop, supervise.ErrGPUHang)},
	} {
		events(e)
	}
	return m, o
}

// text returns what GET /metrics answers.
func text(t *testing.T, m *Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestMetricsOfAService(t *testing.T) {
	t.Parallel()
	m, _ := filled(t)
	got := text(t, m)
	for _, line := range []string{
		`gorocm_build_info{version="v1.2.3"} 1`,
		`gorocm_requests_total{code="200",key="alice",model="qwen",route="/v1/chat/completions"} 1`,
		`gorocm_requests_total{code="404",key="",model="",route="other"} 1`,
		`gorocm_request_outcomes_total{model="qwen",outcome="ok"} 1`,
		`gorocm_prompt_tokens_total{key="alice",model="qwen"} 10`,
		`gorocm_cached_prompt_tokens_total{key="alice",model="qwen"} 4`,
		`gorocm_generated_tokens_total{key="alice",model="qwen"} 7`,
		`gorocm_request_wait_seconds_sum{model="qwen"} 0.2`,
		`gorocm_time_to_first_token_seconds_bucket{model="qwen",le="1"} 1`,
		`gorocm_time_between_tokens_seconds_count{model="qwen"} 1`,
		`gorocm_request_duration_seconds_sum{model="qwen"} 3`,
		`gorocm_model_loads_total{model="qwen",result="ok"} 1`,
		`gorocm_model_loads_total{model="qwen",result="crash_loop"} 1`,
		`gorocm_model_load_duration_seconds_sum{model="qwen"} 4`,
		`gorocm_model_unloads_total{cause="room",model="bge"} 1`,
		`gorocm_model_restarts_total{cause="killed",model="qwen"} 1`,
		`gorocm_model_stalls_total{model="qwen"} 1`,
		`gorocm_model_state{model="bge",state="unloaded"} 1`,
		`gorocm_model_state{model="bge",state="loaded"} 0`,
		`gorocm_model_process_state{model="qwen",state="ready"} 1`,
		`gorocm_requests_running{model="qwen"} 1`,
		`gorocm_requests_waiting{model="qwen"} 1`,
		`gorocm_requests_waiting{model="llama"} 0`,
		`gorocm_card_memory_bytes{card="0000:03:00.0",name="Radeon",owner="ours"} 500`,
		`gorocm_card_memory_bytes{card="0000:03:00.0",name="Radeon",owner="others"} 200`,
		`gorocm_card_memory_bytes{card="0000:03:00.0",name="Radeon",owner="free"} 300`,
		`gorocm_card_memory_size_bytes{card="0000:03:00.0",name="Radeon"} 1000`,
		`gorocm_card_temperature_celsius{card="0000:03:00.0",name="Radeon",sensor="junction"} 60`,
		`gorocm_card_power_watts{card="0000:03:00.0",name="Radeon"} 100`,
		`gorocm_card_power_limit_watts{card="0000:03:00.0",name="Radeon"} 300`,
		`gorocm_card_clock_hertz{card="0000:03:00.0",clock="shader",name="Radeon"} 2e+09`,
		`gorocm_card_busy_ratio{card="0000:03:00.0",name="Radeon"} 0.25`,
		`gorocm_card_throttled{card="0000:03:00.0",limit="temperature",name="Radeon"} 1`,
		`gorocm_card_throttled{card="0000:03:00.0",limit="power",name="Radeon"} 0`,
		`llamacpp:prompt_tokens_total{model="qwen"} 42`,
		`llamacpp:requests_processing{model="qwen"} 1`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
	for _, wrong := range []string{"other_total", `model="llama",state="ready"} 1`} {
		if strings.Contains(got, wrong) {
			t.Errorf("has %s", wrong)
		}
	}
	for _, name := range []string{"go_goroutines", "process_open_fds"} {
		if !strings.Contains(got, "\n"+name+" ") {
			t.Errorf("lacks %s", name)
		}
	}
}

// TestMetricsAreNamedWell checks the service's own metrics; llama-server's names are
// not ours to choose.
func TestMetricsAreNamedWell(t *testing.T) {
	t.Parallel()
	_, o := filled(t)
	o.Models = func() []Model { return []Model{{Name: "qwen", State: "loaded"}} }
	_, registry := New(o)
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestChildrenThatFailAreLeftOut has a llama-server that answers nonsense, one with an
// error, and one that is gone.
func TestChildrenThatFailAreLeftOut(t *testing.T) {
	t.Parallel()
	nonsense := newChild(t, supervise.Ready, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{{{") })
	broken := newChild(t, supervise.Ready, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) })
	many := newChild(t, supervise.Ready, func(w http.ResponseWriter, _ *http.Request) {
		for i := range maxChildFamilies + 1 {
			_, _ = fmt.Fprintf(w, "# TYPE llamacpp:m%d gauge\nllamacpp:m%d 1\n", i, i)
		}
	})
	good := newChild(t, supervise.Ready, answerMetrics)
	gone := newChild(t, supervise.Ready, answerMetrics)
	gone.srv.Close()
	m, _ := New(Options{Log: slog.New(slog.DiscardHandler), Models: func() []Model {
		return []Model{{Name: "a", Child: nonsense}, {Name: "b", Child: broken}, {Name: "c", Child: gone}, {Name: "d", Child: many}, {Name: "e", Child: good}}
	}})
	got := text(t, m)
	if strings.Count(got, "\nllamacpp:") != 2 || !strings.Contains(got, `llamacpp:prompt_tokens_total{model="e"} 42`) {
		t.Errorf("the metrics are\n%s", got)
	}
}

func TestKind(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"host_memory":   supervise.ErrHostMemory, // also an ErrOutOfMemory
		"out_of_memory": &supervise.ExitError{Kind: supervise.ErrOutOfMemory},
		"stalled":       &supervise.HangError{Kind: supervise.ErrStalled},
		"killed":        &supervise.ExitError{Signal: syscall.SIGKILL},
		"exited":        &supervise.ExitError{Code: 1},
		"other":         errors.New("x"),
	} {
		if got := Kind(err); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

// TestGapAllocatesNothing counts a token.
func TestGapAllocatesNothing(t *testing.T) {
	m, _ := New(Options{})
	gap := m.Gap("qwen")
	if n := testing.AllocsPerRun(100, func() { gap(0.02) }); n != 0 {
		t.Errorf("%v allocations for each token", n)
	}
}
