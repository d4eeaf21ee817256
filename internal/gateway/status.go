package gateway

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/internal/statuspage"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// statusPage has the files of the page /status.
var statusPage = statuspage.New()

// serveStatus answers /status/data and /status/events, from which the page is drawn.
func (g *Gateway) serveStatus(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/status/data":
			x := exchangeOf(r.Context())
			writeJSON(w, statusAnswer{
				activityAnswer: g.activityFor(x.key), Models: g.statusModels(x.key),
				CanLoad: g.single == nil, CanUnload: g.single == nil && x.key == nil, SignedIn: x.signedIn,
			})
		case "/status/events":
			g.watchStatus(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// statusAnswer is the answer to GET /status/data.
type statusAnswer struct {
	activityAnswer

	Models []statusModel `json:"models"`
	// CanLoad and CanUnload say what the key may do.
	CanLoad   bool `json:"can_load"`
	CanUnload bool `json:"can_unload"`
	// SignedIn says that the key is that of a session, which the person can end.
	SignedIn bool `json:"signed_in"`
}

// statusModel is a model with how far its load is, and why its process failed.
type statusModel struct {
	modelEntry

	Progress float64      `json:"progress"`
	Failure  *statusCause `json:"failure,omitempty"`
}

// statusCause is the last failure of a model. Only keys without limits see it, since
// the log of llama-server has paths.
type statusCause struct {
	Message string   `json:"message"`
	Remedy  string   `json:"remedy,omitempty"`
	Log     []string `json:"log,omitempty"`
}

// maxFailureLines is how many lines of a log the page shows.
const maxFailureLines = 30

// statusModels returns the models that a key may use.
func (g *Gateway) statusModels(key *Key) []statusModel {
	list := []statusModel{}
	for _, m := range g.visibleModels(key) {
		s := statusModel{modelEntry: newModelEntry(m, time.Time{}), Progress: loadedFraction(m.Progress)}
		s.Created = 0 // the same bytes as long as nothing changes
		if err := cmp.Or(m.Cause, m.Refusal); key == nil && err != nil {
			s.Failure = describeFailure(err, s.Cause)
		}
		list = append(list, s)
	}
	return list
}

// describeFailure returns what happened, what to do, and the last lines of the log.
func describeFailure(err error, public string) *statusCause {
	c := &statusCause{}
	var exit *supervise.ExitError
	var hang *supervise.HangError
	switch {
	case errors.As(err, &exit):
		bare := *exit // its text without what is shown apart from it
		c.Remedy, c.Log = exit.Remedy, exit.Log
		bare.Remedy, bare.Log = "", nil
		c.Message = bare.Error()
	case errors.As(err, &hang):
		bare := *hang
		c.Remedy, c.Log = hang.Remedy, hang.Log
		bare.Remedy, bare.Log = "", nil
		c.Message = bare.Error()
	default:
		c.Message = activity.Clean(err.Error())
	}
	if c.Message == "" {
		c.Message = public
	}
	c.Log = c.Log[max(len(c.Log)-maxFailureLines, 0):]
	return c
}

// statusEvent is an event of /status/events: one of /activity/sse, or all models.
type statusEvent struct {
	Models []statusModel `json:"models"`
}

// watchStatus answers GET /status/events with the events of /activity/sse, and with
// the models whenever one of them changes. A page has one stream, since browsers open
// at most six connections to a host.
func (g *Gateway) watchStatus(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	key := exchangeOf(ctx).key
	var last []byte
	models := func(w io.Writer) error {
		list := g.statusModels(key)
		raw, err := json.Marshal(list)
		if err != nil || bytes.Equal(raw, last) {
			return err
		}
		last = raw
		return writeEvent(w, statusEvent{Models: list})
	}
	g.streamActivity(w, r, g.models.Watch(ctx), models)
}
