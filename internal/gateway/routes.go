package gateway

import (
	"net/http"
	"slices"
	"strings"
)

// route describes a path that is forwarded.
type route struct {
	method string
}

// routes returns the forwarded paths: the endpoints that llama-server v0.5.0
// offers by default (tools/server/server.cpp). Left out are the endpoints that
// llama-server offers only on request (tools, MCP, changing its properties) and
// those of its web page.
func routes() map[string]route {
	get, post := route{method: http.MethodGet}, route{method: http.MethodPost}
	return map[string]route{
		"/metrics": get, "/props": get, "/models": get, "/v1/models": get, "/slots": get,
		"/completion": post, "/completions": post, "/v1/completions": post,
		"/chat/completions": post, "/v1/chat/completions": post,
		"/v1/responses": post, "/responses": post, "/v1/messages": post,
		"/v1/audio/transcriptions": post, "/audio/transcriptions": post,
		"/infill": post, "/embedding": post, "/embeddings": post, "/v1/embeddings": post,
		"/rerank": post, "/reranking": post, "/v1/rerank": post, "/v1/reranking": post,
		"/tokenize": post, "/detokenize": post, "/apply-template": post,
		"/chat/completions/input_tokens": post, "/v1/chat/completions/input_tokens": post,
		"/responses/input_tokens": post, "/v1/responses/input_tokens": post,
		"/v1/messages/count_tokens": post, "/lora-adapters": get,
	}
}

// isChat reports whether the body of a path holds messages, in which
// llama-server accepts addresses of media and fetches them (handle_media in
// server-common.cpp).
func isChat(path string) bool {
	return path == "/apply-template" || slices.ContainsFunc([]string{"/chat/completions", "/responses", "/messages"},
		func(part string) bool { return strings.Contains(path, part) })
}

// findRoute returns the route of a path.
func (g *Gateway) findRoute(path string) (route, bool) {
	if slot, ok := strings.CutPrefix(path, "/slots/"); ok && !strings.Contains(slot, "/") {
		return route{method: http.MethodPost}, true // llama-server answers only with --slot-save-path
	}
	if _, ok := modelName(path); ok {
		return route{method: http.MethodGet}, true
	}
	rt, ok := g.routes[path]
	return rt, ok
}

// checkRoute rejects paths and methods that are not offered.
func (g *Gateway) checkRoute(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rt, ok := g.findRoute(r.URL.Path)
		switch {
		case !ok:
			writeError(w, http.StatusNotFound, "not_found_error", "no such endpoint: "+r.URL.Path)
		case r.Method != rt.method && (r.Method != http.MethodHead || rt.method != http.MethodGet):
			w.Header().Set("Allow", rt.method)
			writeError(w, http.StatusMethodNotAllowed, "invalid_request_error", r.URL.Path+" accepts only "+rt.method)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// forwardPreflight forwards a CORS preflight: a browser sends it before the
// request, and without the key. A service without keys offers none, since its
// clients are not web pages of other origins.
func (g *Gateway) forwardPreflight(proxy http.Handler) middleware {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, known := g.routes[r.URL.Path]
			if r.Method == http.MethodOptions && known && g.credentials.HasKeys() && g.currentBackend() != nil {
				proxy.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}
