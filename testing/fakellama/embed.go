package fakellama

import (
	"encoding/json"
	"math"
	"net/http"
	"sort"
)

// vector is an embedding of eight dimensions and length 1: how often which
// eighth of the vocabulary occurs.
func vector(ids []int32) []float32 {
	v := make([]float32, 8)
	v[0] = 1e-3 // no null vector
	for _, id := range ids {
		v[id%8]++
	}
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	for i := range v {
		v[i] /= float32(math.Sqrt(sum))
	}
	return v
}

func (s *Server) embeddings(w http.ResponseWriter, r *http.Request) {
	if !s.script.Embeddings {
		writeError(w, errUnsupported("This server does not support embeddings. Start it with `--embeddings`"))
		return
	}
	var in struct {
		Input   json.RawMessage `json:"input"`
		Content json.RawMessage `json:"content"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Input == nil {
		in.Input = in.Content
	}
	if in.Input == nil {
		writeError(w, errRequest(`"input" or "content" must be provided`))
		return
	}
	prompts, bad := s.promptTokens(in.Input)
	if bad != nil {
		writeError(w, bad)
		return
	}
	list := make([]any, len(prompts))
	for i, p := range prompts {
		if len(p) == 0 {
			writeError(w, errRequest("Input content cannot be empty"))
			return
		}
		list[i] = map[string]any{"index": i, "embedding": [][]float32{vector(p)}}
	}
	writeJSON(w, list)
}

func (s *Server) rerank(w http.ResponseWriter, r *http.Request) {
	if !s.script.Reranking {
		writeError(w, errUnsupported("This server does not support reranking. Start it with `--reranking`"))
		return
	}
	var in struct {
		Query     *string  `json:"query"`
		Documents []string `json:"documents"`
		TopN      *int     `json:"top_n"`
	}
	if !decode(w, r, &in) {
		return
	}
	if in.Query == nil {
		writeError(w, errRequest(`"query" must be provided`))
		return
	}
	if len(in.Documents) == 0 {
		writeError(w, errRequest(`"documents" must be a non-empty string array`))
		return
	}
	type rank struct {
		Index int     `json:"index"`
		Score float64 `json:"relevance_score"`
	}
	query := vector(s.vocab.tokenize(*in.Query, false))
	list := make([]rank, len(in.Documents))
	for i, d := range in.Documents {
		list[i].Index = i
		for k, x := range vector(s.vocab.tokenize(d, false)) {
			list[i].Score += float64(x) * float64(query[k])
		}
	}
	sort.SliceStable(list, func(a, b int) bool { return list[a].Score > list[b].Score })
	if in.TopN != nil {
		list = list[:min(max(*in.TopN, 0), len(list))]
	}
	writeJSON(w, map[string]any{"model": s.script.Alias, "object": "list", "results": list})
}
