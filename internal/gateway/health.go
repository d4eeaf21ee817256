package gateway

import (
	"io"
	"net/http"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// isHealth reports whether a path is that of the health check.
func isHealth(path string) bool { return path == "/health" || path == "/v1/health" }

// serveHealth answers /health for the service, from the states of the supervised
// processes, which say more than llama-server's own /health. The health of a single
// model, /health?model=NAME, is answered behind the check of the key: names are not
// for everybody.
//
// With one model the service is healthy when that model can be used. With several
// it is healthy while it runs: a model that fails, fails alone.
func (g *Gateway) serveHealth(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !isHealth(r.URL.Path), r.URL.Query().Has("model"):
			next.ServeHTTP(w, r)
		case g.single == nil:
			writeHealthy(w)
		default:
			writeModelHealth(w, g.models.List()[0])
		}
	})
}

// writeHealthy answers that all is well.
func writeHealthy(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"status":"ok"}`)
}

// writeModelHealth answers for one model. One that is not loaded is healthy: the
// next request loads it.
func writeModelHealth(w http.ResponseWriter, m rocm.ModelStatus) {
	switch {
	case m.State == rocm.ModelUnloaded, m.State == rocm.ModelUnloading, m.State == rocm.ModelLoaded && m.Process == supervise.Ready:
		writeHealthy(w)
	case m.State == rocm.ModelLoading, m.State == rocm.ModelLoaded && (m.Process == supervise.Starting || m.Process == supervise.Loading):
		writeLoading(w)
	case m.State == rocm.ModelFailed:
		text := "the model could not be loaded"
		if cause := publicCause(m.Cause); cause != "" {
			text += ": " + cause
		}
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", text)
	default:
		writeError(w, http.StatusServiceUnavailable, "unavailable_error", "llama-server is "+m.Process.String())
	}
}
