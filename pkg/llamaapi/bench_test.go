package llamaapi

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"testing"
)

// memory is a transport that answers every request with the same bytes.
type memory []byte

func (m memory) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(m))}, nil
}

// BenchmarkDecode measures the decoder alone: 5000 events from memory. testing/bench
// measures it with a socket, beside other clients.
func BenchmarkDecode(b *testing.B) {
	const tokens = 5000
	var stream bytes.Buffer
	for i := range tokens {
		fmt.Fprintf(&stream, "data: {\"index\":0,\"content\":\" town\",\"tokens\":[%d],\"stop\":false,\"id_slot\":-1,\"tokens_predicted\":%d,\"tokens_evaluated\":4}\n\n", 260+i, i+1)
	}
	stream.WriteString(fin(tokens, "limit"))
	c := New("http://memory", &http.Client{Transport: memory(stream.Bytes())})
	b.SetBytes(int64(stream.Len()))
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Completion(b.Context(), request())
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		for range s.All() {
			n++
		}
		if n != tokens || s.Err() != nil {
			b.Fatal(n, s.Err())
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens), "ns/token")
}

// BenchmarkLogits decodes the probabilities of a vocabulary of 150,000 tokens, which
// Classify with logits needs.
func BenchmarkLogits(b *testing.B) {
	var doc bytes.Buffer
	doc.WriteString(`[{"id":0,"token":"a","bytes":[97],"logprob":-0.1,"top_logprobs":[`)
	for i := range 150_000 {
		if i > 0 {
			doc.WriteByte(',')
		}
		fmt.Fprintf(&doc, `{"id":%d,"token":" tok","bytes":[32,116,111,107],"logprob":-%d.2578125381469727}`, i, 1+i%20)
	}
	doc.WriteString(`]}]`)
	b.SetBytes(int64(doc.Len()))
	b.ReportAllocs()
	for b.Loop() {
		pos, err := parsePositions(doc.Bytes())
		if err != nil || len(pos) != 1 || len(pos[0].Top) != 150_000 {
			b.Fatal(len(pos), err)
		}
	}
}
