package llamaapi

import (
	"context"
	"fmt"
	"net/http"
)

// Embeddings returns one vector per input, in the order of the inputs. The server
// must have been started with --embeddings (else ErrNotSupported) and a pooling
// type other than none (else ErrNotPooled). It normalises the vectors to length 1
// unless configured otherwise. An input of no tokens makes the server reject the
// whole request.
func (c *Client) Embeddings(ctx context.Context, inputs []Prompt) ([][]float32, error) {
	if len(inputs) == 0 {
		return nil, nil
	}
	var out []struct {
		Index     int         `json:"index"`
		Embedding [][]float32 `json:"embedding"`
	}
	if err := c.call(ctx, http.MethodPost, "/embeddings", map[string]any{"input": inputs}, &out); err != nil {
		return nil, fmt.Errorf("embeddings: %w", err)
	}
	vectors := make([][]float32, len(inputs))
	for _, e := range out {
		switch {
		case e.Index < 0 || e.Index >= len(vectors) || vectors[e.Index] != nil:
			return nil, fmt.Errorf("embeddings: %w: vector of input %d of %d", ErrMalformed, e.Index, len(inputs))
		case len(e.Embedding) != 1:
			return nil, fmt.Errorf("embeddings: %w: %d vectors for input %d; start the server with --pooling mean, cls or last",
				ErrNotPooled, len(e.Embedding), e.Index)
		}
		vectors[e.Index] = e.Embedding[0]
	}
	for i, v := range vectors {
		if v == nil {
			return nil, fmt.Errorf("embeddings: %w: no vector for input %d", ErrMalformed, i)
		}
	}
	return vectors, nil
}

// RankedDocument is one result of Rerank.
type RankedDocument struct {
	// Index is the document's index in the request.
	Index int `json:"index"`
	// Score is the relevance on the model's own scale; higher is more relevant.
	Score float64 `json:"relevance_score"`
}

// Rerank sorts documents by relevance to the query, most relevant first, and
// returns the first topN of them (0 means all). The server must have been started
// with --reranking.
func (c *Client) Rerank(ctx context.Context, query string, documents []string, topN int) ([]RankedDocument, error) {
	if len(documents) == 0 {
		return nil, nil
	}
	if topN <= 0 || topN > len(documents) {
		topN = len(documents)
	}
	in := map[string]any{"query": query, "documents": documents, "top_n": topN}
	var out struct {
		Results []RankedDocument `json:"results"`
	}
	if err := c.call(ctx, http.MethodPost, "/rerank", in, &out); err != nil {
		return nil, fmt.Errorf("rerank: %w", err)
	}
	for _, r := range out.Results {
		if r.Index < 0 || r.Index >= len(documents) {
			return nil, fmt.Errorf("rerank: %w: document %d of %d", ErrMalformed, r.Index, len(documents))
		}
	}
	return out.Results, nil
}
