package fakellama

import (
	"math"
	"net/http"
	"sort"
)

// vector returns an embedding of eight dimensions and length 1: the frequency of
// each eighth of the vocabulary.
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

// embeddings handles /embedding and, in OpenAI's format, /v1/embeddings.
func (s *Server) embeddings(asOAI bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.script.Embeddings {
			writeError(w, errUnsupported("This server does not support embeddings. Start it with `--embeddings`"))
			return
		}
		var in embeddingRequest
		if !decode(w, r, &in) {
			return
		}
		if answer, bad := s.embed(in, asOAI); bad != nil {
			writeError(w, bad)
		} else {
			writeJSON(w, answer)
		}
	}
}

func (s *Server) embed(in embeddingRequest, asOAI bool) (any, *apiError) {
	if in.Input == nil {
		in.Input, asOAI = in.Content, false // "content" is not OpenAI's
	}
	switch {
	case in.Input == nil:
		return nil, errRequest(`"input" or "content" must be provided`)
	case in.Format != "" && in.Format != "float" && in.Format != "base64":
		return nil, errRequest("The format to return the embeddings in. Can be either float or base64")
	}
	prompts, bad := s.promptTokens(in.Input)
	if bad != nil {
		return nil, bad
	}
	list := make([]any, len(prompts))
	for i, p := range prompts {
		if len(p) == 0 {
			return nil, errRequest("Input content cannot be empty")
		}
		list[i] = map[string]any{"index": i, "embedding": [][]float32{vector(p)}}
	}
	if !asOAI {
		return list, nil
	}
	model := s.script.Alias
	if in.Model != nil {
		model = *in.Model
	}
	return embeddingsOAI(model, prompts, in.Format), nil
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
