package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The routes of this file have the shapes of llama-server's router in v0.5.0
// (tools/server/server-models.cpp), so that its web page works with a gateway.
// Members that the router has not are named in docs/serve.md.

// modelName returns NAME of the path /v1/models/NAME. A name may contain slashes.
func modelName(path string) (string, bool) {
	name, ok := strings.CutPrefix(path, "/v1/models/")
	return name, ok && name != ""
}

// listsModels reports whether a request concerns no model in particular, where
// there are several.
func (g *Gateway) listsModels(r *http.Request) bool {
	switch r.URL.Path {
	case "/models/sse":
		return true
	case "/models", "/v1/models":
		return g.single == nil
	case "/props":
		return g.single == nil && r.URL.Query().Get("model") == ""
	}
	_, ok := modelName(r.URL.Path)
	return ok && g.single == nil
}

// serveModels answers the requests about models that need no backend.
func (g *Gateway) serveModels(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		lists := g.listsModels(r)
		switch path := r.URL.Path; {
		case path == "/models/sse":
			g.watchModels(w, r)
		case path == "/models/load":
			g.loadModel(w, r)
		case path == "/models/unload":
			g.unloadModel(w, r)
		case path == "/health", path == "/v1/health":
			writeModelHealth(w, exchangeOf(r.Context()).model)
		case lists && path == "/props":
			writeJSON(w, routerProps())
		case lists:
			g.listModels(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// writeJSON answers with a value.
func writeJSON(w http.ResponseWriter, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "server_error", "the answer could not be written")
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = w.Write(raw)
}

// routerProps is the answer to GET /props without a model. The web page recognises
// a router by it.
func routerProps() map[string]any {
	return map[string]any{
		"role": "router", "models_autoload": true, "model_alias": "go-rocm", "model_path": "none",
		"default_generation_settings": map[string]any{"params": map[string]any{}, "n_ctx": 0},
		"ui_settings":                 map[string]any{}, "cors_proxy_enabled": false,
	}
}

// modelEntry is a model in a list.
type modelEntry struct {
	ID           string       `json:"id"`
	Aliases      []string     `json:"aliases"`
	Tags         []string     `json:"tags"`
	Object       string       `json:"object"`
	OwnedBy      string       `json:"owned_by"`
	Created      int64        `json:"created"`
	Status       entryStatus  `json:"status"`
	Architecture architecture `json:"architecture"`
	CanRemove    bool         `json:"can_remove"`

	State        ModelState   `json:"state"`
	Capabilities []Capability `json:"capabilities"`
	Size         int64        `json:"size"`
	Context      int          `json:"context,omitempty"`
	Fits         bool         `json:"fits"`
	Why          []string     `json:"why,omitempty"`
	Cause        string       `json:"cause,omitempty"`
	LoadSeconds  float64      `json:"load_seconds,omitempty"`
	LastUse      int64        `json:"last_use,omitempty"`
	Running      int          `json:"running"`
	Waiting      int          `json:"waiting"`
	Pinned       bool         `json:"pinned"`
}

// entryStatus is the router's member "status".
type entryStatus struct {
	Value    string   `json:"value"`
	Args     []string `json:"args"`
	Failed   bool     `json:"failed,omitempty"`
	ExitCode int      `json:"exit_code,omitempty"`
}

// architecture says which media a model reads and writes.
type architecture struct {
	Inputs  []string `json:"input_modalities"`
	Outputs []string `json:"output_modalities"`
}

// routerState returns a state in the words of the router, which has no states for
// a model that unloads or has failed.
func routerState(s ModelState) string {
	switch s {
	case ModelUnloading:
		return string(ModelLoaded)
	case ModelFailed:
		return string(ModelUnloaded)
	case ModelUnloaded, ModelLoading, ModelLoaded:
	}
	return string(s)
}

// entry describes a model.
func (m *ModelStatus) entry(now time.Time) modelEntry {
	e := modelEntry{
		ID: m.Name, Aliases: append([]string{}, m.Aliases...), Tags: []string{}, Object: "model", OwnedBy: "llamacpp", Created: now.Unix(),
		Status:       entryStatus{Value: routerState(m.State), Args: []string{}, Failed: m.State == ModelFailed},
		Architecture: architecture{Inputs: []string{"text"}, Outputs: []string{"text"}},
		State:        m.State, Capabilities: append([]Capability{}, m.Capabilities...), Size: m.Size, Context: m.Context,
		Fits: m.Fits, Why: m.Why, Cause: m.Cause, LoadSeconds: m.LoadTime.Seconds(), Running: m.Running, Waiting: m.Waiting, Pinned: m.Pinned,
	}
	if e.Status.Failed {
		e.Status.ExitCode = 1
	}
	if slices.Contains(m.Capabilities, CanSee) {
		e.Architecture.Inputs = append(e.Architecture.Inputs, "image")
	}
	if slices.Contains(m.Capabilities, CanHear) {
		e.Architecture.Inputs = append(e.Architecture.Inputs, "audio")
	}
	if !m.LastUse.IsZero() {
		e.LastUse = m.LastUse.Unix()
	}
	return e
}

// listModels answers GET /models, /v1/models and /v1/models/NAME.
func (g *Gateway) listModels(w http.ResponseWriter, r *http.Request) {
	key := exchangeOf(r.Context()).key
	wanted, one := modelName(r.URL.Path)
	data := []modelEntry{}
	for _, m := range g.visibleModels(key) {
		if one && (m.Name == wanted || slices.Contains(m.Aliases, wanted)) {
			writeJSON(w, m.entry(time.Now()))
			return
		}
		data = append(data, m.entry(time.Now()))
	}
	if one {
		writeError(w, http.StatusNotFound, "not_found_error", g.describeUnknown(key, wanted))
		return
	}
	writeJSON(w, map[string]any{"object": "list", "data": data})
}

// loadModel answers POST /models/load: at once, as the router does, or with
// "wait": true when the model is loaded.
func (g *Gateway) loadModel(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	running := x.model.State == ModelLoaded || x.model.State == ModelLoading
	switch {
	case x.wait:
		ctx, cancel := context.WithTimeoutCause(r.Context(), g.limits.LoadWait, errLoadWait)
		defer cancel()
		if err := g.models.Load(ctx, x.model.Name); err != nil {
			g.rejectModel(w, r, err)
			return
		}
	case running:
		writeError(w, http.StatusBadRequest, "invalid_request_error", "model is already running")
		return
	default:
		g.background("load", x.model.Name, g.models.Load)
	}
	writeJSON(w, map[string]bool{"success": true})
}

// unloadModel answers POST /models/unload. A key with limits must not take a model
// from other clients.
func (g *Gateway) unloadModel(w http.ResponseWriter, r *http.Request) {
	x := exchangeOf(r.Context())
	switch {
	case x.key != nil:
		writeError(w, http.StatusForbidden, "permission_error", fmt.Sprintf("the key %q must not unload models; use a key of the key file", x.key.Name))
		return
	case x.model.State != ModelLoaded && x.model.State != ModelLoading:
		writeError(w, http.StatusBadRequest, "invalid_request_error", "model is not running")
		return
	case x.wait:
		ctx, cancel := context.WithTimeoutCause(r.Context(), g.limits.LoadWait, errLoadWait)
		defer cancel()
		if err := g.models.Unload(ctx, x.model.Name); err != nil {
			g.rejectModel(w, r, err)
			return
		}
	case g.single != nil:
		g.rejectModel(w, r, ErrOnlyModel)
		return
	default:
		g.background("unload", x.model.Name, g.models.Unload)
	}
	writeJSON(w, map[string]bool{"success": true})
}

// background runs what a client does not wait for, until Close.
func (g *Gateway) background(what, name string, f func(context.Context, string) error) {
	g.running.Go(func() {
		ctx, cancel := context.WithTimeoutCause(g.closing, g.limits.LoadWait, errLoadWait)
		defer cancel()
		if err := f(ctx, name); err != nil && g.closing.Err() == nil {
			g.log.Warn(what+" of a model failed", "model", name, "cause", err.Error())
		}
	})
}

const (
	// maxWatchers is how many clients may watch the models at once.
	maxWatchers = 256
	// watchComments is the time between the comments that keep a silent
	// connection open.
	watchComments = 15 * time.Second
)

// modelEvent is an event of /models/sse.
type modelEvent struct {
	Model string     `json:"model"`
	Event string     `json:"event"`
	Data  *eventData `json:"data"`
}

type eventData struct {
	Status   string         `json:"status"`
	Progress *eventProgress `json:"progress,omitempty"`
	ExitCode *int           `json:"exit_code,omitempty"`
	State    ModelState     `json:"state"`
	Cause    string         `json:"cause,omitempty"`
}

type eventProgress struct {
	Stages  []string `json:"stages"`
	Current string   `json:"current"`
	Value   float64  `json:"value"`
}

// event describes a change of a model.
func (m *ModelStatus) event() modelEvent {
	data := &eventData{Status: routerState(m.State), State: m.State, Cause: m.Cause}
	switch m.State {
	case ModelLoading:
		data.Progress = &eventProgress{Stages: []string{"text_model"}, Current: "text_model", Value: m.Progress}
	case ModelUnloaded, ModelFailed:
		code := 0
		if m.State == ModelFailed {
			code = 1
		}
		data.ExitCode = &code
	case ModelLoaded, ModelUnloading:
	}
	return modelEvent{Model: m.Name, Event: "model_status", Data: data}
}

// watchModels answers GET /models/sse with an event for each change of a model
// that the key may use.
func (g *Gateway) watchModels(w http.ResponseWriter, r *http.Request) {
	if g.watchers.Add(1) > maxWatchers {
		g.watchers.Add(-1)
		writeBusy(w, errors.New("too many clients watch the models; retry later"))
		return
	}
	defer g.watchers.Add(-1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(g.closing, cancel)()
	changes := g.models.Watch(ctx)
	key, control := exchangeOf(ctx).key, http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.WriteHeader(http.StatusOK)
	comments := time.NewTicker(watchComments)
	defer comments.Stop()
	for err := control.Flush(); err == nil; err = control.Flush() {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-changes:
			if !ok {
				return
			}
			raw, err := json.Marshal(m.event())
			if err != nil || !key.allows(m) {
				continue
			}
			if _, err := fmt.Fprintf(w, "data: %s\n\n", raw); err != nil {
				return
			}
		case <-comments.C:
			if _, err := io.WriteString(w, ":\n\n"); err != nil {
				return
			}
		}
	}
}
