package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// fakeModels are Models whose backends answer with their name and the body.
type fakeModels struct {
	t *testing.T

	mu      sync.Mutex
	models  map[string]*fakeModel
	changes []chan ModelStatus
	leases  int
}

type fakeModel struct {
	status  ModelStatus
	backend Backend
	slots   int
	gate    chan struct{} // Acquire waits until it is closed; nil: it does not
	err     error         // of Acquire and Load
	asked   []AcquireRequest
}

// newModels returns loaded models of these names.
func newModels(t *testing.T, names ...string) *fakeModels {
	t.Helper()
	f := &fakeModels{t: t, models: map[string]*fakeModel{}}
	for _, name := range names {
		f.models[name] = &fakeModel{
			status: ModelStatus{Name: name, Path: "/models/" + name, State: ModelLoaded, Process: supervise.Ready, Fits: true},
			backend: newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, "data: "+name+" ")
				_, _ = io.Copy(w, r.Body)
				_, _ = io.WriteString(w, "\n\n")
			})),
		}
	}
	return f
}

// serve returns the URL of a gateway of the models.
func (f *fakeModels) serve(o Options, keys ...Key) string {
	f.t.Helper()
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(CredentialFiles{Named: keys}, log)
	if err != nil {
		f.t.Fatal(err)
	}
	o.Models, o.Log, o.Credentials = f, log, credentials
	g := New(o)
	f.t.Cleanup(g.Close)
	return serveGateway(f.t, g)
}

func (f *fakeModels) find(name string) (*fakeModel, error) {
	if name == "" && len(f.models) > 1 {
		return nil, ErrNoModelName
	}
	for _, m := range f.models {
		if name == "" || m.status.Name == name || slices.Contains(m.status.Aliases, name) {
			return m, nil
		}
	}
	return nil, ErrUnknownModel
}

// Resolve implements Models.
func (f *fakeModels) Resolve(name string) (ModelStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.find(name)
	if err != nil {
		return ModelStatus{}, err
	}
	return m.status, nil
}

// Acquire implements Models.
func (f *fakeModels) Acquire(ctx context.Context, r AcquireRequest) (Lease, error) {
	f.mu.Lock()
	m, err := f.find(r.Name)
	if err != nil {
		f.mu.Unlock()
		return nil, err
	}
	m.asked = append(m.asked, r)
	gate, err, loaded := m.gate, m.err, m.status.State == ModelLoaded
	f.mu.Unlock()
	if r.LoadedOnly && !loaded {
		return nil, ErrNotLoaded
	}
	if gate != nil {
		r.Progress(LoadProgress{Model: m.status.Name, State: ModelLoading, Fraction: 0.42})
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases++
	return &fakeLease{singleLease: singleLease{backend: m.backend, slots: m.slots, model: m.status.Name}, models: f}, nil
}

type fakeLease struct {
	singleLease

	models *fakeModels
	once   sync.Once
}

// Release implements Lease.
func (l *fakeLease) Release() {
	l.once.Do(func() {
		l.models.mu.Lock()
		defer l.models.mu.Unlock()
		l.models.leases--
	})
}

// waitReleased waits until no request has a lease.
func (f *fakeModels) waitReleased() {
	for {
		f.mu.Lock()
		n := f.leases
		f.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// List implements Models.
func (f *fakeModels) List() []ModelStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	var list []ModelStatus
	for _, name := range slices.Sorted(maps.Keys(f.models)) {
		list = append(list, f.models[name].status)
	}
	return list
}

// set changes the state of a model.
func (f *fakeModels) set(name string, state ModelState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	m, err := f.find(name)
	if err != nil {
		return err
	}
	if m.err != nil {
		return m.err
	}
	m.status.State = state
	for _, c := range f.changes {
		c <- m.status
	}
	return nil
}

// Load implements Models.
func (f *fakeModels) Load(_ context.Context, name string) error { return f.set(name, ModelLoaded) }

// Unload implements Models.
func (f *fakeModels) Unload(_ context.Context, name string) error { return f.set(name, ModelUnloaded) }

// Watch implements Models. The channel has room for all changes of a test.
func (f *fakeModels) Watch(context.Context) <-chan ModelStatus {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := make(chan ModelStatus, 100)
	f.changes = append(f.changes, c)
	return c
}

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
		"queue":   {&QueueFullError{Model: "m", RetryAfter: 7 * time.Second}, 429, "7", "too many requests"},
		"no room": {&NoRoomError{Model: "m", Reasons: []string{"it needs 20 GiB, and the card has 16 GiB"}}, 503, "", "it needs 20 GiB"},
		"for now": {&NoRoomError{Model: "m", RetryAfter: 1500 * time.Millisecond}, 503, "2", "does not fit"},
		"load":    {&LoadError{Model: "m", Err: fmt.Errorf("open %s", secret), RetryAfter: time.Second}, 503, "1", "could not be loaded"},
		"loading": {ErrLoading, 503, "1", "Loading model"},
		"other":   {fmt.Errorf("open %s", secret), 503, "", "not available"},
	} {
		f := newModels(t, "m")
		f.models["m"].err = tt.err
		got := send(t, "POST", f.serve(Options{})+"/completion", `{"prompt":"x"}`)
		if got.status != tt.status || got.header.Get("Retry-After") != tt.retry || !strings.Contains(got.body, tt.says) || strings.Contains(got.body, secret) {
			t.Errorf("%s: %d %q %s, want %d %q", name, got.status, got.header.Get("Retry-After"), got.body, tt.status, tt.retry)
		}
	}
}

func TestWaitsForAModelToADeadline(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m")
	f.models["m"].gate = make(chan struct{})
	got := send(t, "POST", f.serve(Options{Limits: Limits{LoadWait: time.Millisecond}})+"/completion", `{"prompt":"x"}`)
	if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "in time") {
		t.Errorf("%d %v %s", got.status, got.header, got.body)
	}
}

// A request that only looks keeps no model loaded.
func TestLooksOnlyAtLoadedModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m", "n")
	f.models["m"].status.State = ModelUnloaded
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

// The lists have the shape of llama-server's router.
func TestListsModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "org/b")
	f.models["a"].status = ModelStatus{
		Name: "a", Aliases: []string{"x"}, Path: "/secret/a.gguf", Size: 9, State: ModelFailed, Cause: "it crashed", Err: fmt.Errorf("open /secret"),
		Capabilities: []Capability{CanChat, CanSee}, Why: []string{"too large"}, LastUse: time.Unix(5, 0),
	}
	url := f.serve(Options{})
	var list struct {
		Object string
		Data   []map[string]any
	}
	for _, path := range []string{"/v1/models", "/models?reload=1"} {
		got := send(t, "GET", url+path, "")
		if err := json.Unmarshal([]byte(got.body), &list); err != nil || list.Object != "list" || len(list.Data) != 2 || strings.Contains(got.body, "secret") {
			t.Fatalf("%s: %v, %s", path, err, got.body)
		}
	}
	delete(list.Data[0], "created")
	want := map[string]any{
		"id": "a", "aliases": []any{"x"}, "tags": []any{}, "object": "model", "owned_by": "llamacpp", "can_remove": false,
		"status":       map[string]any{"value": "unloaded", "args": []any{}, "failed": true, "exit_code": 1.0},
		"architecture": map[string]any{"input_modalities": []any{"text", "image"}, "output_modalities": []any{"text"}},
		"state":        "failed", "capabilities": []any{"chat", "vision"}, "size": 9.0, "fits": false, "why": []any{"too large"},
		"cause": "it crashed", "last_use": 5.0, "running": 0.0, "waiting": 0.0, "pinned": false,
	}
	if got, wanted := fmt.Sprint(list.Data[0]), fmt.Sprint(want); got != wanted {
		t.Errorf("%s, want %s", got, wanted)
	}
	for path, status := range map[string]int{"/v1/models/org/b": 200, "/v1/models/x": 200, "/v1/models/b": 404} {
		if got := send(t, "GET", url+path, ""); got.status != status {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	if got := send(t, "GET", url+"/props", ""); got.status != 200 || !strings.Contains(got.body, `"role":"router"`) {
		t.Errorf("props: %d %s", got.status, got.body)
	}
}

func TestLoadsAndUnloadsOnRequest(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "b")
	f.models["b"].err = &NoRoomError{Model: "b", Reasons: []string{"too large"}}
	f.models["b"].status.State = ModelUnloaded
	url := f.serve(Options{})
	for _, tt := range []struct {
		path, body string
		status     int
		says       string
	}{
		{"/models/load", `{"model":"a"}`, 400, "already running"},
		{"/models/load", `{"model":"a","wait":true}`, 200, `{"success":true}`},
		{"/models/unload", `{"model":"a","wait":true}`, 200, `{"success":true}`},
		{"/models/unload", `{"model":"a"}`, 400, "not running"},
		{"/models/load", `{"model":"c"}`, 404, "no model"},
		{"/models/load", `{}`, 400, "model name is missing"},
		{"/models/load", `{"model":"b","wait":true}`, 503, "too large"},
		{"/models/load", `{"model":"b"}`, 200, `{"success":true}`},
	} {
		if got := send(t, "POST", url+tt.path, tt.body); got.status != tt.status || !strings.Contains(got.body, tt.says) {
			t.Errorf("%s %s: %d %s, want %d %s", tt.path, tt.body, got.status, got.body, tt.status, tt.says)
		}
	}
	watch := f.Watch(t.Context())
	for path, state := range map[string]ModelState{"/models/load": ModelLoaded} {
		if got := send(t, "POST", url+path, `{"model":"a"}`); got.status != 200 {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
		if m := <-watch; m.Name != "a" || m.State != state {
			t.Errorf("%s: %+v", path, m)
		}
	}
}

func TestTheOnlyModelStays(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newBackend(t, http.NotFoundHandler())))
	for _, body := range []string{`{"model":"x"}`, `{"model":"x","wait":true}`} {
		if got := send(t, "POST", url+"/models/unload", body); got.status != 400 || !strings.Contains(got.body, "only this model") {
			t.Errorf("%d %s", got.status, got.body)
		}
	}
}

func TestStreamsChangesOfModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "b")
	key, sum := NewKey()
	url := f.serve(Options{}, Key{Name: "alice", SHA256: sum, Models: []string{"a"}})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/models/sse", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	f.mu.Lock()
	f.models["a"].status.Progress = 0.5
	f.mu.Unlock()
	for _, change := range []struct {
		name  string
		state ModelState
	}{{"b", ModelLoading}, {"a", ModelLoading}, {"a", ModelLoaded}, {"a", ModelUnloading}, {"a", ModelUnloaded}, {"a", ModelFailed}} {
		if err := f.set(change.name, change.state); err != nil {
			t.Fatal(err)
		}
	}
	lines := bufio.NewScanner(res.Body)
	for _, want := range []string{
		`{"model":"a","event":"model_status","data":{"status":"loading","progress":{"stages":["text_model"],"current":"text_model","value":0.5},"state":"loading"}}`,
		`{"model":"a","event":"model_status","data":{"status":"loaded","state":"loaded"}}`,
		`{"model":"a","event":"model_status","data":{"status":"loaded","state":"unloading"}}`,
		`{"model":"a","event":"model_status","data":{"status":"unloaded","exit_code":0,"state":"unloaded"}}`,
		`{"model":"a","event":"model_status","data":{"status":"unloaded","exit_code":1,"state":"failed"}}`,
	} {
		if !lines.Scan() || lines.Text() != "data: "+want {
			t.Errorf("%s, want %s", lines.Text(), want)
		}
		lines.Scan() // the empty line
	}
}

func TestHealthOfModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "b")
	key, sum := NewKey()
	url := f.serve(Options{}, Key{Name: "alice", SHA256: sum, Models: []string{"a"}})
	for _, tt := range []struct {
		state   ModelState
		process supervise.State
		status  int
	}{
		{ModelUnloaded, supervise.Stopped, 200},
		{ModelLoading, supervise.Loading, 503},
		{ModelLoaded, supervise.Ready, 200},
		{ModelLoaded, supervise.Stalled, 503},
		{ModelFailed, supervise.Failed, 503},
	} {
		f.mu.Lock()
		f.models["a"].status.State, f.models["a"].status.Process = tt.state, tt.process
		f.mu.Unlock()
		if got := send(t, "GET", url+"/health?model=a", "", "Authorization", "Bearer "+key); got.status != tt.status {
			t.Errorf("%s, %s: %d %s, want %d", tt.state, tt.process, got.status, got.body, tt.status)
		}
		if got := send(t, "GET", url+"/health", ""); got.status != 200 {
			t.Errorf("the service: %d %s", got.status, got.body)
		}
	}
	if got := send(t, "GET", url+"/health?model=a", ""); got.status != 401 {
		t.Errorf("without the key: %d", got.status)
	}
	if got := send(t, "GET", url+"/health?model=b", "", "Authorization", "Bearer "+key); got.status != 404 {
		t.Errorf("a model of others: %d", got.status)
	}
}

// A client that asked for a stream gets comments while it waits, and then what any
// other would get, an error as an event.
func TestCommentsWhileAModelLoads(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		path, body string
		err        error
		want       string
	}{
		"answer":       {"/v1/chat/completions", `{"messages":[],"stream":true}`, nil, "data: m {\"messages\":[],\"stream\":true}\n\n"},
		"error":        {"/v1/chat/completions", `{"messages":[],"stream":true}`, &NoRoomError{Model: "m"}, `data: {"error":{"code":503,"message":"the model \"m\" does not fit into the free memory","type":"unavailable_error"}}` + "\n\n"},
		"to Anthropic": {"/v1/messages", `{"messages":[],"stream":true}`, &NoRoomError{Model: "m"}, "event: error\ndata: {\"type\":\"error\",\"error\":{\"code\":503,"},
	} {
		f := newModels(t, "m")
		gate := make(chan struct{})
		f.models["m"].gate, f.models["m"].err = gate, tt.err
		url := f.serve(Options{Limits: Limits{FirstComment: time.Millisecond, Comments: time.Millisecond}})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+tt.path, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		lines := bufio.NewReader(res.Body)
		for range 3 {
			line, err := lines.ReadString('\n')
			if err != nil || line != ": waiting\n" && line != ": loading the model m, 42 %\n" {
				t.Errorf("%s: %q, %v", name, line, err)
			}
			_, _ = lines.ReadString('\n')
		}
		close(gate)
		rest, err := io.ReadAll(lines)
		_, answer, _ := strings.Cut(string(rest), "%\n\n")
		for strings.HasPrefix(answer, ": ") {
			_, answer, _ = strings.Cut(answer, "\n\n")
		}
		if !strings.HasPrefix(string(rest), ": ") {
			answer = string(rest)
		}
		if err != nil || res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(answer, tt.want) {
			t.Errorf("%s: %d %v %q, %v; want %q", name, res.StatusCode, res.Header, answer, err, tt.want)
		}
		f.waitReleased()
	}
}

// Without a stream the status says what happened.
func TestOthersWaitSilently(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m")
	gate := make(chan struct{})
	f.models["m"].gate = gate
	url := f.serve(Options{Limits: Limits{FirstComment: time.Millisecond, Comments: time.Millisecond}})
	time.AfterFunc(20*time.Millisecond, func() { close(gate) })
	if got := send(t, "POST", url+"/completion", `{"prompt":"x","stream":false}`); got.status != 200 || strings.Contains(got.body, ": waiting") || strings.Contains(got.body, "loading") {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// A client that leaves while the model loads is not waited for.
func TestClientsLeaveWhileAModelLoads(t *testing.T) {
	t.Parallel()
	f := newModels(t, "m")
	f.models["m"].gate = make(chan struct{})
	url := f.serve(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/completion", strings.NewReader(`{"prompt":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = res.Body.Close()
		}
		left <- err
	}()
	for {
		f.mu.Lock()
		n := len(f.models["m"].asked)
		f.mu.Unlock()
		if n == 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if <-left == nil {
		t.Error("the client got an answer")
	}
	f.waitReleased()
}
