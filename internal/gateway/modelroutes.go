package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm"
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

	State        rocm.ModelState `json:"state"`
	Capabilities []Capability    `json:"capabilities"`
	File         string          `json:"file"` // without its directory
	Size         int64           `json:"size"`
	Context      int             `json:"context,omitempty"`
	Fits         bool            `json:"fits"`
	Why          []string        `json:"why,omitempty"`
	Cause        string          `json:"cause,omitempty"`
	LoadSeconds  float64         `json:"load_seconds,omitempty"`
	LastUse      int64           `json:"last_use,omitempty"`
	Running      int             `json:"running"`
	Waiting      int             `json:"waiting"`
	Pinned       bool            `json:"pinned"`
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
func routerState(s rocm.ModelState) string {
	switch s {
	case rocm.ModelUnloading:
		return string(rocm.ModelLoaded)
	case rocm.ModelFailed:
		return string(rocm.ModelUnloaded)
	case rocm.ModelUnloaded, rocm.ModelLoading, rocm.ModelLoaded:
	}
	return string(s)
}

// newModelEntry describes a model.
func newModelEntry(m rocm.ModelStatus, now time.Time) modelEntry {
	e := modelEntry{
		ID: m.Name, Aliases: append([]string{}, m.Aliases...), Tags: []string{}, Object: "model", OwnedBy: "llamacpp", Created: now.Unix(),
		Status:       entryStatus{Value: routerState(m.State), Args: []string{}, Failed: m.State == rocm.ModelFailed},
		Architecture: architecture{Inputs: []string{"text"}, Outputs: []string{"text"}},
		State:        m.State, Capabilities: capabilities(m), File: filepath.Base(m.Path), Size: m.Size, Context: m.Context,
		Fits: m.Fits, Why: m.Why, Cause: publicCause(m.Cause), LoadSeconds: m.LoadTime.Seconds(), Running: m.Leases, Waiting: m.Waiting, Pinned: m.Pinned,
	}
	if e.Status.Failed {
		e.Status.ExitCode = 1
	}
	if slices.Contains(e.Capabilities, CanSee) {
		e.Architecture.Inputs = append(e.Architecture.Inputs, "image")
	}
	if slices.Contains(e.Capabilities, CanHear) {
		e.Architecture.Inputs = append(e.Architecture.Inputs, "audio")
	}
	if !m.LastUse.IsZero() {
		e.LastUse = m.LastUse.Unix()
	}
	return e
}

// listModels answers GET /models, /v1/models and /v1/models/NAME. With ?reload=1 it
// reads the settings again before, for keys without limits.
func (g *Gateway) listModels(w http.ResponseWriter, r *http.Request) {
	key := exchangeOf(r.Context()).key
	wanted, one := modelName(r.URL.Path)
	if !one && key == nil && g.reload != nil && r.URL.Query().Get("reload") != "" {
		g.reload(r.Context())
	}
	data := []modelEntry{}
	for _, m := range g.visibleModels(key) {
		if one && (m.Name == wanted || slices.Contains(m.Aliases, wanted)) {
			writeJSON(w, newModelEntry(m, time.Now()))
			return
		}
		data = append(data, newModelEntry(m, time.Now()))
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
	running := x.model.State == rocm.ModelLoaded || x.model.State == rocm.ModelLoading
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
	case x.model.State != rocm.ModelLoaded && x.model.State != rocm.ModelLoading:
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

// modelEvent is an event of /models/sse.
type modelEvent struct {
	Model string     `json:"model"`
	Event string     `json:"event"`
	Data  *eventData `json:"data,omitempty"`
}

type eventData struct {
	Status   string          `json:"status"`
	Progress *eventProgress  `json:"progress,omitempty"`
	ExitCode *int            `json:"exit_code,omitempty"`
	State    rocm.ModelState `json:"state"`
	Cause    string          `json:"cause,omitempty"`
}

type eventProgress struct {
	Stages  []string `json:"stages"`
	Current string   `json:"current"`
	Value   float64  `json:"value"`
}

// newModelEvent describes a change of a model.
func newModelEvent(m rocm.ModelStatus) modelEvent {
	data := &eventData{Status: routerState(m.State), State: m.State, Cause: publicCause(m.Cause)}
	switch m.State {
	case rocm.ModelLoading:
		data.Progress = &eventProgress{Stages: []string{"text_model"}, Current: "text_model", Value: loadedFraction(m.Progress)}
	case rocm.ModelUnloaded, rocm.ModelFailed:
		code := 0
		if m.State == rocm.ModelFailed {
			code = 1
		}
		data.ExitCode = &code
	case rocm.ModelLoaded, rocm.ModelUnloading:
	}
	return modelEvent{Model: m.Name, Event: "model_status", Data: data}
}

// ModelsReloaded tells the clients of /models/sse that the settings of the models were
// read again.
func (g *Gateway) ModelsReloaded() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.reloaded)
	g.reloaded = make(chan struct{})
}

// nextReload returns the channel that the next ModelsReloaded closes.
func (g *Gateway) nextReload() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reloaded
}

// visibleNames returns the names of the models that a key may use.
func (g *Gateway) visibleNames(k *Key) []string {
	var names []string
	for _, m := range g.visibleModels(k) {
		names = append(names, m.Name)
	}
	return names
}

// reloadEvents returns the events after the settings were read again: one for each
// model that is gone, and one that makes clients list the models again.
func reloadEvents(before, now []string) []modelEvent {
	var events []modelEvent
	for _, name := range before {
		if !slices.Contains(now, name) {
			events = append(events, modelEvent{Model: name, Event: "model_remove"})
		}
	}
	return append(events, modelEvent{Model: "*", Event: "models_reload"})
}

// writeEvents writes events to a stream.
func writeEvents(w io.Writer, events ...modelEvent) error {
	for _, e := range events {
		raw, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", raw); err != nil {
			return err
		}
	}
	return nil
}

// watchModels answers GET /models/sse with an event for each change of a model
// that the key may use.
func (g *Gateway) watchModels(w http.ResponseWriter, r *http.Request) {
	ctx, out, stop := g.startWatching(w, r)
	if stop == nil {
		return
	}
	defer stop()
	changes, reloaded := g.models.Watch(ctx), g.nextReload()
	key := exchangeOf(ctx).key
	names := g.visibleNames(key)
	comments, rights := time.NewTicker(watchComments), time.NewTicker(activityInterval)
	defer comments.Stop()
	defer rights.Stop()
	for err := out.flush(); err == nil; err = out.flush() {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-changes:
			switch {
			case !ok:
				return
			case key.allows(m):
				err = writeEvents(out, newModelEvent(m))
			}
		case <-reloaded:
			before := names
			names, reloaded = g.visibleNames(key), g.nextReload()
			err = writeEvents(out, reloadEvents(before, names)...)
		case <-rights.C:
			if !g.mayWatch(r) {
				return
			}
		case <-comments.C:
			_, err = io.WriteString(out, ":\n\n")
		}
		if err != nil {
			return
		}
	}
}
