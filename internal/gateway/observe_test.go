package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// recorder is a Metrics that keeps the records.
type recorder struct {
	mu      sync.Mutex
	records []activity.Record
	gaps    map[string]int
}

func (m *recorder) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, "gorocm_metrics 1\n")
}

func (m *recorder) Request(r *activity.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = append(m.records, *r)
}

func (m *recorder) Gap(model string) func(float64) {
	return func(float64) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.gaps[model]++
	}
}

func (m *recorder) ended() []activity.Record {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.records)
}

// last waits until n requests have ended, and returns the last one's record.
func (m *recorder) last(t *testing.T, n int) activity.Record {
	t.Helper()
	poll.Until(t, "the request ends", func() bool { return len(m.ended()) >= n })
	return m.ended()[n-1]
}

// answerWith is a backend that sends the pieces of an answer.
func answerWith(t *testing.T, contentType string, status int, pieces ...string) *testBackend {
	t.Helper()
	return newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		for _, p := range pieces {
			_, _ = io.WriteString(w, p)
			_ = http.NewResponseController(w).Flush()
		}
	}))
}

// chatStream is an answer of llama-server: three tokens, and the counts at the end.
func chatStream() []string {
	return []string{
		"data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n",
		": ping\n\n",
		"data: {\"choices\":[{\"delta\":{\"content\":\"b\"}}]}\n\n",
		"data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"timings\":{\"cache_n\":7,\"prompt_n\":5,\"prompt_ms\":12.5,\"predicted_n\":3,\"predicted_per_second\":42.5}}\n\n",
		"data: [DONE]\n\n",
	}
}

func TestRecordsEndedRequests(t *testing.T) {
	t.Parallel()
	metrics := &recorder{gaps: map[string]int{}}
	models := newModels(t, "qwen", "broken")
	models.models["qwen"].backend = answerWith(t, "text/event-stream", http.StatusOK, chatStream()...)
	models.models["broken"].backend = answerWith(t, "application/json", http.StatusInternalServerError, `{"error":{}}`)
	url := models.serve(Options{Metrics: metrics})
	for i, tt := range []struct {
		name, method, path, body string
		want                     activity.Record
	}{
		{
			"a stream", "POST", "/v1/chat/completions", `{"model":"qwen","stream":true}`,
			activity.Record{Route: "/v1/chat/completions", Model: "qwen", Status: 200, Outcome: activity.OK, PromptTokens: 12, CachedTokens: 7, GeneratedTokens: 3, TokensPerSecond: 42.5, Stream: true},
		},
		{
			"an error of llama-server", "POST", "/completion", `{"model":"broken"}`,
			activity.Record{Route: "/completion", Model: "broken", Status: 500, Outcome: activity.Failed, Why: "llama-server answered with the status Internal Server Error"},
		},
		{
			"a field's name is not in the reason", "POST", "/completion", `{"model":"qwen","n_predict":"secret"}`,
			activity.Record{Route: "/completion", Status: 400, Outcome: activity.Rejected, Why: "invalid request"},
		},
		{
			"an unknown model", "POST", "/completion", `{"model":"\u001b[31mnone"}`,
			activity.Record{Route: "/completion", Status: 404, Outcome: activity.Rejected, Why: `there is no model "\x1b[31mnone"; GET /v1/models lists the names`},
		},
		{
			"an unknown path", "GET", "/admin/1234", "",
			activity.Record{Route: "other", Status: 404, Outcome: activity.Rejected, Why: "no such endpoint: /admin/1234"},
		},
		{
			"a pattern", "GET", "/v1/models/qwen", "",
			activity.Record{Route: "/v1/models/{name}", Status: 200, Outcome: activity.OK},
		},
	} {
		res := send(t, tt.method, url+tt.path, tt.body)
		got := metrics.last(t, i+1)
		if got.ID == "" || got.ID != res.header.Get("X-Request-Id") {
			t.Errorf("%s: the id is %q, and X-Request-Id %q", tt.name, got.ID, res.header.Get("X-Request-Id"))
		}
		want := tt.want
		want.Method, want.Stage = tt.method, activity.Done
		if tt.want.Stream && got.FirstTokenSeconds <= 0 {
			t.Errorf("%s: no time of the first token", tt.name)
		}
		if int64(len(res.body)) != got.Bytes {
			t.Errorf("%s: %d bytes are recorded, %d were sent", tt.name, got.Bytes, len(res.body))
		}
		got.Seq, got.ID, got.Time, got.Bytes, got.Seconds, got.FirstTokenSeconds, got.WaitSeconds = 0, "", want.Time, 0, 0, 0, 0
		if got != want {
			t.Errorf("%s:\n got %+v\nwant %+v", tt.name, got, want)
		}
	}
}

// TestMeasuresGaps writes an answer in pieces: the time to a comment, and to [DONE],
// is not one between tokens.
func TestMeasuresGaps(t *testing.T) {
	t.Parallel()
	var gaps []float64
	log := activity.NewLog(activity.Options{})
	w := &tokenWriter{ResponseWriter: httptest.NewRecorder(), gap: func(s float64) { gaps = append(gaps, s) }, request: log.Begin(activity.Record{Time: time.Now()})}
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	for _, piece := range chatStream() {
		if _, err := io.WriteString(w, piece); err != nil {
			t.Fatal(err)
		}
	}
	if len(gaps) != 2 {
		t.Errorf("%d times between tokens, want 2", len(gaps))
	}
	if r := log.Snapshot(nil).Running[0]; r.GeneratedTokens != 3 {
		t.Errorf("%d pieces are counted, want 3", r.GeneratedTokens)
	}
}

// TestTokensAllocateNothing writes the same event again and again.
func TestTokensAllocateNothing(t *testing.T) {
	log := activity.NewLog(activity.Options{})
	sum := 0.0
	w := &tokenWriter{ResponseWriter: discard{}, began: true, stream: true, gap: func(s float64) { sum += s }, request: log.Begin(activity.Record{Time: time.Now()})}
	event := []byte(chatStream()[0])
	write := func() {
		if _, err := w.Write(event); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if n := testing.AllocsPerRun(200, write); n != 0 {
		t.Errorf("%v allocations for each token", n)
	}
}

// discard is a ResponseWriter that drops what it gets.
type discard struct{}

func (discard) Header() http.Header         { return http.Header{} }
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) WriteHeader(int)             {}

func TestRecordsAbandonedRequests(t *testing.T) {
	t.Parallel()
	metrics := &recorder{gaps: map[string]int{}}
	models := newModels(t, "qwen")
	started := make(chan struct{})
	models.models["qwen"].backend = newBackend(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(started)
		<-r.Context().Done()
	}))
	url := models.serve(Options{Metrics: metrics})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-started
		cancel()
	}()
	if res, err := http.DefaultClient.Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("the request was answered")
	}
	if got := metrics.last(t, 1); got.Outcome != activity.ClientLeft || got.Model != "qwen" {
		t.Errorf("the record is %+v", got)
	}
}

// activityOf returns the answer to GET /activity.
func activityOf(t *testing.T, url string, header ...string) activityAnswer {
	t.Helper()
	res := send(t, "GET", url+"/activity", "", header...)
	var a activityAnswer
	if err := json.Unmarshal([]byte(res.body), &a); err != nil {
		t.Fatalf("%v: %s", err, res.body)
	}
	return a
}

func TestActivityShowsAKeyOnlyItsOwnRequests(t *testing.T) {
	t.Parallel()
	alice, aliceSum := NewKey()
	bob, bobSum := NewKey()
	models := newModels(t, "qwen")
	metrics := &recorder{gaps: map[string]int{}}
	log := activity.NewLog(activity.Options{Capture: 3})
	url := models.serve(Options{Metrics: metrics, Activity: log}, Key{Name: "alice", SHA256: aliceSum}, Key{Name: "bob", SHA256: bobSum})
	send(t, "POST", url+"/completion", `{"prompt":"of alice"}`, "Authorization", "Bearer "+alice)
	send(t, "POST", url+"/completion", `{}`, "Authorization", "Bearer wrong")
	metrics.last(t, 2)
	a := activityOf(t, url, "Authorization", "Bearer "+alice)
	if len(a.Recent) != 1 || a.Recent[0].Key != "alice" || len(a.Captured) != 0 || a.Capture != 3 {
		t.Errorf("alice sees %+v", a)
	}
	if b := activityOf(t, url, "Authorization", "Bearer "+bob); len(b.Recent) != 0 || len(b.Running) != 0 || len(b.Captured) != 0 {
		t.Errorf("bob sees %+v", b)
	}
	if res := send(t, "GET", url+"/metrics", "", "Authorization", "Bearer "+bob); res.status != http.StatusForbidden {
		t.Errorf("the metrics of the service for a key with limits: %d", res.status)
	}
	if res := send(t, "GET", url+"/activity", ""); res.status != http.StatusUnauthorized {
		t.Errorf("the activity without a key: %d", res.status)
	}
	captured := log.Captured()
	if len(captured) != 1 || captured[0].Request != `{"prompt":"of alice"}` || !strings.Contains(captured[0].Response, "data: qwen") {
		t.Errorf("captured %+v", captured)
	}
}

func TestActivityHasNoBodyUnlessAsked(t *testing.T) {
	t.Parallel()
	models := newModels(t, "qwen")
	metrics := &recorder{gaps: map[string]int{}}
	url := models.serve(Options{Metrics: metrics})
	send(t, "POST", url+"/completion", `{"prompt":"secret words"}`)
	metrics.last(t, 1)
	res := send(t, "GET", url+"/activity", "")
	if !strings.Contains(res.body, `"model":"qwen"`) || strings.Contains(res.body, "secret") || !strings.Contains(res.body, `"capture":0,"captured":[]`) {
		t.Errorf("the activity is %s", res.body)
	}
}

// TestActivityStream reads the events of a request from its arrival to its end.
func TestActivityStream(t *testing.T) {
	t.Parallel()
	models := newModels(t, "qwen")
	url := models.serve(Options{})
	res := getAs(t, url+"/activity/sse", "") //nolint:bodyclose // closed when the test ends
	send(t, "POST", url+"/completion", `{}`)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var event activityEvent
		if err := json.Unmarshal([]byte(data), &event); err != nil || event.Request == nil {
			t.Fatalf("%q: %v", data, err)
		}
		if event.Request.Stage == activity.Done {
			if event.Request.Outcome != activity.OK || event.Request.Model != "qwen" {
				t.Errorf("the request ended as %+v", event.Request)
			}
			return
		}
	}
	t.Errorf("the stream ended: %v", lines.Err())
}
