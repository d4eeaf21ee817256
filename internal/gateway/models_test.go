package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

func TestRoutesByModel(t *testing.T) {
	t.Parallel()
	f := newModels(t, "qwen3-8b", "qwen3-4b", "org/bge-m3")
	f.models["qwen3-8b"].status.Aliases = []string{"gpt-4o-mini"}
	url := f.serve(Options{})
	form := func(model string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nRIFF\r\n--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n" + model + "\r\n--x--\r\n"
	}
	for name, tt := range map[string]struct {
		method, path, body string
		status             int
		says               string
	}{
		"body":            {"POST", "/v1/chat/completions", `{"model":"qwen3-8b","messages":[]}`, 200, `data: qwen3-8b {"model":"qwen3-8b","messages":[]}`},
		"last member":     {"POST", "/completion", ` {"prompt":"\"model\":\"qwen3-8b\"", "model" : "qwen3-4b"}`, 200, `data: qwen3-4b  {"prompt":"\"model\":\"qwen3-8b\"", "model" : "qwen3-4b"}`},
		"escaped":         {"POST", "/v1/embeddings", `{"input":"x","mod\u0065l":"org\/bge-m3"}`, 200, `data: org/bge-m3 {"input":"x","mod\u0065l":"org\/bge-m3"}`},
		"alias":           {"POST", "/v1/messages", `{"model":"gpt-4o-mini","messages":[]}`, 200, `data: qwen3-8b {"model":"gpt-4o-mini"`},
		"tokenize":        {"POST", "/tokenize", `{"content":"x","model":"qwen3-4b"}`, 200, "data: qwen3-4b"},
		"query of a POST": {"POST", "/slots/0?action=save&model=qwen3-4b", `{"filename":"a"}`, 200, "data: qwen3-4b"},
		"body and query":  {"POST", "/tokenize?model=qwen3-8b", `{"content":"x","model":"qwen3-4b"}`, 200, "data: qwen3-4b"},
		"query":           {"GET", "/props?model=org%2Fbge-m3", "", 200, "data: org/bge-m3"},
		"form":            {"POST", "/v1/audio/transcriptions", form("qwen3-4b"), 200, "data: qwen3-4b"},
		"form, unknown":   {"POST", "/v1/audio/transcriptions", form("qwen"), 404, "qwen3-4b"},
		"no name":         {"POST", "/completion", `{"prompt":"x"}`, 400, "model name is missing"},
		"null":            {"POST", "/completion", `{"prompt":"x","model":null}`, 400, "model name is missing"},
		"no string":       {"POST", "/completion", `{"prompt":"x","model":["qwen3-8b"]}`, 400, "must be a string"},
		"twice":           {"POST", "/completion", `{"model":"qwen3-8b","model":"qwen3-4b"}`, 400, "two members"},
		"GET, no name":    {"GET", "/slots", "", 400, "model name is missing"},
		"typing mistake":  {"POST", "/completion", `{"model":"qwen3-9b"}`, 404, `near names are \"qwen3-4b\", \"qwen3-8b\"`},
		"part of a name":  {"POST", "/completion", `{"model":"BGE"}`, 404, `near names are \"org/bge-m3\"`},
		"other name":      {"POST", "/completion", `{"model":"llama"}`, 404, `there is no model \"llama\"; GET /v1/models`},
		"GET, unknown":    {"GET", "/metrics?model=llama", "", 404, "there is no model"},
	} {
		got := send(t, tt.method, url+tt.path, tt.body, "Content-Type", map[bool]string{true: "multipart/form-data; boundary=x", false: "application/json"}[strings.HasPrefix(tt.body, "--x")])
		if got.status != tt.status || !strings.Contains(got.body, tt.says) {
			t.Errorf("%s: %d %s, want %d %s", name, got.status, got.body, tt.status, tt.says)
		}
	}
	f.waitReleased()
}

func TestOneModelNeedsNoName(t *testing.T) {
	t.Parallel()
	url := newModels(t, "only").serve(Options{})
	if got := send(t, "POST", url+"/completion", `{"prompt":"x"}`); got.status != 200 || !strings.Contains(got.body, "data: only") {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := send(t, "POST", url+"/completion", `{"model":"other"}`); got.status != 404 {
		t.Errorf("another name: %d %s", got.status, got.body)
	}
}

func TestAnswersWhyAModelIsNotAvailable(t *testing.T) {
	t.Parallel()
	const secret = "/home/me/model.gguf"
	for name, tt := range map[string]struct {
		err    error
		status int
		retry  string
		says   string
	}{
		"queue":    {&QueueFullError{Model: "m", RetryAfter: 7 * time.Second}, 429, "7", "too many requests"},
		"no room":  {&NoRoomError{Model: "m", Reasons: []string{"it needs 20 GiB, and the card has 16 GiB"}}, 503, "", "it needs 20 GiB"},
		"for now":  {&NoRoomError{Model: "m", RetryAfter: 1500 * time.Millisecond}, 503, "2", "does not fit"},
		"load":     {&LoadError{Model: "m", Err: fmt.Errorf("open %s", secret), RetryAfter: time.Second}, 503, "1", "could not be loaded"},
		"unloaded": {ErrUnloaded, 503, "1", "unloaded on request"},
		"loading":  {ErrLoading, 503, "1", "Loading model"},
		"other":    {fmt.Errorf("open %s", secret), 503, "", "not available"},
	} {
		f := newModels(t, "m")
		f.models["m"].err = tt.err
		got := send(t, "POST", f.serve(Options{})+"/completion", `{"prompt":"x"}`)
		if got.status != tt.status || got.header.Get("Retry-After") != tt.retry || !strings.Contains(got.body, tt.says) || strings.Contains(got.body, secret) {
			t.Errorf("%s: %d %q %s, want %d %q", name, got.status, got.header.Get("Retry-After"), got.body, tt.status, tt.retry)
		}
	}
}

// A request that only looks keeps no model loaded.
func TestLooksOnlyAtLoadedModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m", "n")
	f.models["m"].status.State = rocm.ModelUnloaded
	url := f.serve(Options{})
	for path, status := range map[string]int{
		"/metrics?model=m": 400, "/props?model=m&autoload=false": 400, "/props?model=m&autoload=true": 200, "/props?model=n": 200,
	} {
		if got := send(t, "GET", url+path, ""); got.status != status {
			t.Errorf("%s: %d %s, want %d", path, got.status, got.body, status)
		}
	}
	for path, status := range map[string]int{"/tokenize": 200, "/tokenize?autoload=0": 400} {
		if got := send(t, "POST", url+path, `{"content":"x","model":"m"}`); got.status != status {
			t.Errorf("%s: %d %s, want %d", path, got.status, got.body, status)
		}
	}
}

// Many clients of several models, of which some requests fail and some clients leave:
// every answer is that of the model that was asked for, and no lease remains.
func TestNoAnswerIsFromAnotherModel(t *testing.T) {
	t.Parallel()
	names := []string{"a", "b", "c"}
	f := newModels(t, names...)
	for i, name := range names {
		f.models[name].slots = i + 1
	}
	// On a busy machine a request waits longer than the time to the first comment, which
	// would be a part of the answer.
	url := f.serve(Options{Limits: Limits{FirstComment: time.Hour}})
	var clients, failing sync.WaitGroup
	stop := make(chan struct{})
	failing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			f.mu.Lock()
			f.models["b"].err = []error{nil, &QueueFullError{Model: "b"}, &LoadError{Model: "b", Err: io.ErrUnexpectedEOF}}[i%3]
			f.mu.Unlock()
		}
	})
	for client := range 64 {
		clients.Go(func() {
			for i := range 20 {
				name := names[(client+i)%len(names)]
				body := fmt.Sprintf(`{"model":%q,"prompt":"%d of %d","stream":%t}`, name, i, client, i%2 == 0)
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 4 {
					time.AfterFunc(time.Duration(client)*10*time.Microsecond, cancel)
				}
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(body))
				if err != nil {
					t.Error(err)
				}
				res, err := http.DefaultClient.Do(req)
				if err != nil {
					if ctx.Err() == nil {
						t.Error(err)
					}
					cancel()
					continue
				}
				raw, err := io.ReadAll(res.Body)
				_ = res.Body.Close()
				switch {
				case err != nil && ctx.Err() != nil:
				case name == "b" && (res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusServiceUnavailable):
				case err != nil || res.StatusCode != http.StatusOK || string(raw) != "data: "+name+" "+body+"\n\n":
					t.Errorf("%s: %d %q, %v", body, res.StatusCode, raw, err)
				}
				cancel()
			}
		})
	}
	clients.Wait()
	close(stop)
	failing.Wait()
	f.waitReleased()
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status rocm.ModelStatus
		want   []Capability
	}{
		{rocm.ModelStatus{}, []Capability{CanComplete}},
		{rocm.ModelStatus{ChatTemplate: true, Vision: true, Audio: true}, []Capability{CanComplete, CanChat, CanSee, CanHear}},
		{rocm.ModelStatus{ChatTemplate: true, Embeddings: true}, []Capability{CanEmbed}},
		{rocm.ModelStatus{Reranking: true}, []Capability{CanRerank}},
	} {
		if got := capabilities(tc.status); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.status, got, tc.want)
		}
	}
}

// Clients read the kind of a failure, and no path.
func TestPublicCause(t *testing.T) {
	t.Parallel()
	exit := &supervise.ExitError{Kind: supervise.ErrOutOfMemory, Log: []string{"/home/alice"}}
	for err, want := range map[error]string{nil: "", exit: "out of memory", errors.New("/home/alice"): "the log of the service has the cause"} {
		if got := publicCause(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

func TestLoadedFraction(t *testing.T) {
	t.Parallel()
	for p, want := range map[rocm.LoadProgress]float64{{Stage: rocm.StageUnpack, Done: 0.9}: 0, {Stage: rocm.StageLoad, Done: 0.5}: 0.5} {
		if got := loadedFraction(p); got != want {
			t.Errorf("%+v: %v, want %v", p, got, want)
		}
	}
}
