package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/activity"
)

// serveActivity answers /activity and /activity/sse, and GET /metrics for the whole
// service. /metrics?model=NAME is that of the model's llama-server.
func (g *Gateway) serveActivity(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := exchangeOf(r.Context()).key
		switch path := r.URL.Path; {
		case path == "/activity":
			writeJSON(w, g.activityFor(key))
		case path == "/activity/sse":
			g.watchActivity(w, r)
		case path != "/metrics" || g.metrics == nil || r.URL.Query().Get("model") != "":
			next.ServeHTTP(w, r)
		case key != nil:
			writeError(w, http.StatusForbidden, "permission_error", fmt.Sprintf("the key %q must not read the metrics of the service; use a key of the key file, or --metrics-listen", key.Name))
		default:
			g.metrics.ServeHTTP(w, r)
		}
	})
}

// activityAnswer is the answer to GET /activity.
type activityAnswer struct {
	activity.Snapshot

	// Capture is how many bodies are kept, Captured are those bodies.
	Capture  int                `json:"capture"`
	Captured []activity.Capture `json:"captured"`
	// Samples are those of the last quarter of an hour, the oldest first.
	Samples []activity.Sample `json:"samples"`
}

// activityFor returns the activity that a key may see: with limits its own requests,
// without limits everything.
func (g *Gateway) activityFor(key *Key) activityAnswer {
	a := activityAnswer{Capture: g.activity.Capture(), Captured: []activity.Capture{}, Samples: []activity.Sample{}}
	a.Snapshot = g.activity.Snapshot(func(r *activity.Record) bool { return ownRequest(key, r) })
	if key == nil {
		a.Captured = g.activity.Captured()
		if g.sampler != nil {
			a.Samples = g.sampler.History()
		}
	}
	return a
}

// ownRequest reports whether a key may see a request.
func ownRequest(key *Key, r *activity.Record) bool { return key == nil || r.Key == key.Name }

// activityEvent is an event of /activity/sse; one of its members is set.
type activityEvent struct {
	Request *activity.Record `json:"request,omitempty"`
	Sample  *activity.Sample `json:"sample,omitempty"`
}

// activityInterval is the time between the events of a running request that only has
// more tokens.
const activityInterval = time.Second

// watchActivity answers GET /activity/sse: an event for each request that begins,
// changes or ends, once a second for one that generates, and for each sample.
func (g *Gateway) watchActivity(w http.ResponseWriter, r *http.Request) {
	g.streamActivity(w, r, nil, func(io.Writer) error { return nil })
}

// streamActivity is watchActivity; it also calls more after each change that it
// receives from models, and once a second.
func (g *Gateway) streamActivity(w http.ResponseWriter, r *http.Request, models <-chan rocm.ModelStatus, more func(io.Writer) error) {
	ctx, out, stop := g.startWatching(w, r)
	if stop == nil {
		return
	}
	defer stop()
	changes := g.activity.Subscribe()
	defer changes.Close()
	key := exchangeOf(ctx).key
	tick, comments := time.NewTicker(activityInterval), time.NewTicker(watchComments)
	defer tick.Stop()
	defer comments.Stop()
	var sampled <-chan struct{} // nil: never
	if g.sampler != nil && key == nil {
		_, sampled, _ = g.sampler.Latest()
	}
	for err := out.flush(); err == nil; err = out.flush() {
		select {
		case <-ctx.Done():
			return
		case <-comments.C:
			_, err = io.WriteString(out, ":\n\n")
		case <-sampled:
			var last activity.Sample
			last, sampled, _ = g.sampler.Latest()
			err = writeEvent(out, activityEvent{Sample: &last})
		case _, ok := <-models:
			if !ok {
				return // the service ends
			}
			err = more(out)
		case <-tick.C:
			if !g.mayWatch(r) {
				return
			}
			err = errors.Join(writeRequests(out, key, changes), more(out))
		case <-changes.Changed():
			err = writeRequests(out, key, changes)
		}
		if err != nil {
			return
		}
	}
}

// writeRequests writes an event for each request that has changed.
func writeRequests(w io.Writer, key *Key, changes *activity.Subscription) error {
	for _, r := range changes.Take() {
		if !ownRequest(key, &r) {
			continue
		}
		if err := writeEvent(w, activityEvent{Request: &r}); err != nil {
			return err
		}
	}
	return nil
}

func writeEvent(w io.Writer, event any) error {
	raw, err := json.Marshal(event)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "data: %s\n\n", raw)
	return err
}
