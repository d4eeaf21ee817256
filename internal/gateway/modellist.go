package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxModelList is the largest accepted answer of llama-server's /v1/models.
const maxModelList = 1 << 20

// serveModel answers GET /v1/models/NAME for a single model: OpenAI's API has this
// route and llama-server has not. The answer is from llama-server's own list.
func (g *Gateway) serveModel(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := modelName(r.URL.Path)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		model, err := g.findModel(r, name)
		switch {
		case err != nil:
			g.handleProxyError(w, r, err)
		case model == nil:
			writeError(w, http.StatusNotFound, "not_found_error", fmt.Sprintf("there is no model %q; GET /v1/models lists the names", name))
		default:
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			_, _ = w.Write(model) //nolint:gosec // JSON of llama-server, never HTML
		}
	})
}

// findModel returns the entry of a model in the backend's list, nil if there is
// none.
func (g *Gateway) findModel(r *http.Request, name string) (json.RawMessage, error) {
	b := exchangeOf(r.Context()).lease.Backend()
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, b.BaseURL()+"/v1/models", nil)
	if err != nil {
		return nil, err
	}
	res, err := b.HTTPClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, errors.New("list of models: " + res.Status)
	}
	var list struct {
		Data []json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxModelList)).Decode(&list); err != nil {
		return nil, fmt.Errorf("list of models: %w", err)
	}
	for _, entry := range list.Data {
		var model struct {
			ID      string   `json:"id"`
			Aliases []string `json:"aliases"`
		}
		if err := json.Unmarshal(entry, &model); err != nil {
			return nil, fmt.Errorf("list of models: %w", err)
		}
		for _, id := range append(model.Aliases, model.ID) {
			if id == name {
				return entry, nil
			}
		}
	}
	return nil, nil
}
