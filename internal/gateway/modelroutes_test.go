package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// The lists have the shape of llama-server's router.
func TestListsModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "org/b")
	f.models["a"].status = rocm.ModelStatus{
		Name: "a", Aliases: []string{"x"}, Path: "/secret/a.gguf", Size: 9, State: rocm.ModelFailed, Cause: fmt.Errorf("open /secret: %w", supervise.ErrModelInvalid),
		ChatTemplate: true, Vision: true, Why: []string{"too large"}, LastUse: time.Unix(5, 0),
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
		"state":        "failed", "capabilities": []any{"completion", "chat", "vision"}, "file": "a.gguf", "size": 9.0, "fits": false, "why": []any{"too large"},
		"cause": "model cannot be loaded", "last_use": 5.0, "running": 0.0, "waiting": 0.0, "pinned": false,
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
	f.models["b"].status.State = rocm.ModelUnloaded
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
	for path, state := range map[string]rocm.ModelState{"/models/load": rocm.ModelLoaded} {
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
	res := getAs(t, url+"/models/sse", key) //nolint:bodyclose // closed when the test ends
	f.mu.Lock()
	f.models["a"].status.Progress = rocm.LoadProgress{Stage: rocm.StageLoad, Done: 0.5}
	f.mu.Unlock()
	for _, change := range []struct {
		name  string
		state rocm.ModelState
	}{{"b", rocm.ModelLoading}, {"a", rocm.ModelLoading}, {"a", rocm.ModelLoaded}, {"a", rocm.ModelUnloading}, {"a", rocm.ModelUnloaded}, {"a", rocm.ModelFailed}} {
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

// ?reload=1 reads the settings again before the list is written, for keys without limits.
func TestListOfModelsReloads(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "b")
	reloads := 0
	reload := func(context.Context) {
		reloads++
		f.mu.Lock()
		defer f.mu.Unlock()
		f.models["b"].status.Name = fmt.Sprint("b", reloads)
	}
	key, sum := NewKey()
	url := f.serve(Options{Reload: reload}, Key{Name: "alice", SHA256: sum})
	open := newModels(t, "a")
	unlimited := open.serve(Options{Reload: reload})
	for _, tt := range []struct {
		url     string
		reloads int
	}{
		{unlimited + "/models", 0},
		{unlimited + "/models?reload=1", 1},
		{unlimited + "/v1/models?reload=true", 2},
		{unlimited + "/v1/models/a?reload=1", 2},
		{unlimited + "/models?reload=", 2},
		{url + "/models?reload=1", 2},
	} {
		if got := send(t, "GET", tt.url, "", "Authorization", "Bearer "+key); got.status != http.StatusOK || reloads != tt.reloads {
			t.Errorf("%s: %d %s, %d reloads, want %d", tt.url, got.status, got.body, reloads, tt.reloads)
		}
	}
	if got := send(t, "GET", url+"/models", "", "Authorization", "Bearer "+key); !strings.Contains(got.body, `"id":"b2"`) {
		t.Errorf("%s", got.body)
	}
}

// After a reload, clients learn which of the models that they may use are gone.
func TestStreamsReloads(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "b", "c")
	log := slog.New(slog.DiscardHandler)
	credentials, err := LoadCredentials(CredentialFiles{}, log)
	if err != nil {
		t.Fatal(err)
	}
	g := New(Options{Models: f, Log: log, Credentials: credentials})
	t.Cleanup(g.Close)
	res := getAs(t, serveGateway(t, g)+"/models/sse", "") //nolint:bodyclose // closed when the test ends
	f.mu.Lock()
	delete(f.models, "b")
	f.mu.Unlock()
	g.ModelsReloaded()
	lines := bufio.NewScanner(res.Body)
	for _, want := range []string{`data: {"model":"b","event":"model_remove"}`, "", `data: {"model":"*","event":"models_reload"}`, ""} {
		if !lines.Scan() || lines.Text() != want {
			t.Errorf("%s, want %s", lines.Text(), want)
		}
	}
}

// A shutdown does not wait for the clients that watch.
func TestShutdownEndsTheStreamsOfChanges(t *testing.T) {
	t.Parallel()
	g := newGateway(t, newBackend(t, http.NotFoundHandler()))
	srv := httptest.NewUnstartedServer(g)
	srv.Config.RegisterOnShutdown(g.Shutdown)
	srv.Start()
	defer srv.Close()
	res := getAs(t, srv.URL+"/models/sse", "") //nolint:bodyclose // closed when the test ends
	if err := srv.Config.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
	g.Close()
}

func TestHealthOfModels(t *testing.T) {
	t.Parallel()
	f := newModels(t, "a", "b")
	key, sum := NewKey()
	url := f.serve(Options{}, Key{Name: "alice", SHA256: sum, Models: []string{"a"}})
	for _, tt := range []struct {
		state   rocm.ModelState
		process supervise.State
		status  int
	}{
		{rocm.ModelUnloaded, supervise.Stopped, 200},
		{rocm.ModelLoading, supervise.Loading, 503},
		{rocm.ModelLoaded, supervise.Ready, 200},
		{rocm.ModelLoaded, supervise.Stalled, 503},
		{rocm.ModelFailed, supervise.Failed, 503},
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
