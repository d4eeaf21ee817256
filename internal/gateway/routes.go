package gateway

import (
	"net/http"
	"strings"
)

// route describes a path that is forwarded.
type route struct {
	method string
	// fields are those that the JSON body may have; nil: no body is forwarded.
	fields fields
	// form says that the body is a multipart form instead.
	form bool
	// light says that the request needs no slot of llama-server's.
	light bool
	// steady says that the request, if it has one prompt, computes in one set of slots
	// from its beginning to its end, or in none.
	steady bool
}

// routes returns the offered paths: the endpoints that llama-server v0.5.0 offers by
// default (tools/server/server.cpp), and those of its router for models that do not
// download or delete any. Left out are the endpoints that
// llama-server offers only on request (tools, MCP, changing its properties), those
// of its web page, and those that control the requests of other clients
// (/v1/stream, /v1/chat/completions/control).
func routes() map[string]route {
	get := route{method: http.MethodGet, light: true}
	post := func(f fields) route { return route{method: http.MethodPost, fields: f} }
	steady := func(f fields) route { return route{method: http.MethodPost, fields: f, steady: true} }
	light := func(f fields) route { return route{method: http.MethodPost, fields: f, light: true, steady: true} }
	completion, chat, responses, anthropic := completionFields(), chatFields(), responsesFields(), anthropicFields()
	embedding, rerank := embeddingFields(), rerankFields()
	transcription := route{method: http.MethodPost, form: true, steady: true}
	return map[string]route{
		"/health": get, "/v1/health": get, "/models/sse": get, "/activity": get, "/activity/sse": get, "/status/data": get, "/status/events": get,
		"/models/load": post(controlFields()), "/models/unload": post(controlFields()),
		"/metrics": get, "/props": get, "/models": get, "/v1/models": get, "/slots": get, "/lora-adapters": get,
		"/completion": steady(completion), "/completions": steady(completion), "/v1/completions": steady(completion), "/infill": steady(infillFields()),
		"/chat/completions": steady(chat), "/v1/chat/completions": steady(chat),
		"/responses": steady(responses), "/v1/responses": steady(responses), "/v1/messages": steady(anthropic),
		"/audio/transcriptions": transcription, "/v1/audio/transcriptions": transcription,
		"/embedding": post(embedding), "/embeddings": post(embedding), "/v1/embeddings": post(embedding),
		"/rerank": post(rerank), "/reranking": post(rerank), "/v1/rerank": post(rerank), "/v1/reranking": post(rerank),
		"/tokenize": light(tokenizeFields()), "/detokenize": light(detokenizeFields()), "/apply-template": light(chat),
		"/chat/completions/input_tokens": light(chat), "/v1/chat/completions/input_tokens": light(chat),
		"/responses/input_tokens": light(responses), "/v1/responses/input_tokens": light(responses),
		"/v1/messages/count_tokens": light(anthropic),
	}
}

// findRoute returns the route of a path.
func (g *Gateway) findRoute(path string) (route, bool) {
	if slot, ok := strings.CutPrefix(path, "/slots/"); ok && !strings.Contains(slot, "/") {
		return g.slotRoute, true // llama-server answers only with --slot-save-path
	}
	if _, ok := modelName(path); ok {
		return route{method: http.MethodGet, light: true}, true
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
