package llamaapi

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
)

func TestPositions(t *testing.T) {
	pos, err := parsePositions([]byte(`[{"id":7,"token":"a","bytes":[97],"logprob":-0.25,"top_logprobs":[
		{"id":7,"token":"a","bytes":[97],"logprob":-0.25},{"logprob":-3.4028234663852886e+38,"id":2}]},
		{"id":3,"prob":0.5,"top_probs":[{"id":3,"prob":0.5},{"id":4,"prob":0.0}]}]`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Position{
		{ID: 7, LogProb: -0.25, Top: []TokenProb{{7, -0.25}, {2, -math.MaxFloat32}}},
		{ID: 3, LogProb: float32(math.Log(0.5)), Top: []TokenProb{{3, float32(math.Log(0.5))}, {4, -math.MaxFloat32}}},
	}
	if len(pos) != 2 || pos[0].ID != 7 || pos[0].LogProb != -0.25 || len(pos[0].Top) != 2 ||
		pos[0].Top[1] != want[0].Top[1] || pos[1].LogProb != want[1].LogProb || pos[1].Top[1] != want[1].Top[1] {
		t.Errorf("got %+v, want %+v", pos, want)
	}
	logits, err := pos[0].Logits(9)
	if err != nil || logits[7] != -0.25 || logits[0] != -math.MaxFloat32 || len(logits) != 9 {
		t.Errorf("logits %v, %v", logits, err)
	}
	if _, err := pos[0].Logits(5); err == nil {
		t.Error("an id outside the vocabulary is accepted")
	}
	if _, err := pos[0].Logits(0); err == nil {
		t.Error("an empty vocabulary is accepted")
	}
	for _, bad := range []string{`{}`, `[1]`, `[{"id":"a"}]`, `[{"logprob":1e999}]`, `[{"id":1}`, `[{"top_probs":5}]`} {
		if _, err := parsePositions([]byte(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

// FuzzPositions compares the results with those of encoding/json.
func FuzzPositions(f *testing.F) {
	f.Add([]byte(`[{"id":7,"logprob":-0.25,"top_logprobs":[{"id":2,"logprob":-1}]}]`))
	f.Add([]byte(`[{"id":7,"prob":0.25,"top_probs":null}, {}]`))
	f.Add([]byte(`[{"id":1,"prob":0.5,"top_probs":[{"id":1,"prob":0.5},{"prob":0}]}] behind`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[{"id":5,"id":null,"logprob":1,"logprob":null},{"prob":null},{"prob":-1},{"logprob":1e-999},{"i\u0064":3}]`))
	f.Fuzz(comparePositions)
}

// TestPositionsDepth covers inputs that are too slow for a fuzzer.
func TestPositionsDepth(t *testing.T) {
	for depth := maxDepth - 4; depth <= maxDepth; depth++ {
		deep := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		for place, nested := range map[string]int{`[{"x":` + deep + `}]`: 2, `[{"top_probs":[{"x":` + deep + `}]}]`: 4} {
			comparePositions(t, []byte(place))
			if _, err := parsePositions([]byte(place)); (err == nil) != (depth+nested <= maxDepth) {
				t.Errorf("depth %d below %d: %v", depth, nested, err)
			}
		}
	}
}

func comparePositions(t *testing.T, data []byte) {
	t.Helper()
	got, err := parsePositions(data)
	if err != nil || len(data) == 0 {
		return
	}
	var want []map[string]json.RawMessage
	// The caller rejects text after the array; json.Decoder accepts it, too.
	if err := json.NewDecoder(bytes.NewReader(data)).Decode(&want); err != nil {
		t.Fatalf("%q: encoding/json: %v", data, err)
	}
	if len(got) != len(want) {
		t.Fatalf("%q: %d positions, want %d", data, len(got), len(want))
	}
	for i, m := range want {
		compareCandidate(t, data, TokenProb{got[i].ID, got[i].LogProb}, m)
		list, other := m["top_logprobs"], m["top_probs"]
		if list == nil {
			list, other = other, nil
		}
		if other != nil {
			continue // duplicates: the last one wins, which a map does not show
		}
		var top []map[string]json.RawMessage
		if list != nil {
			if err := json.Unmarshal(list, &top); err != nil {
				t.Fatalf("%q: encoding/json: %v", data, err)
			}
		}
		if len(top) != len(got[i].Top) {
			t.Fatalf("%q: %d candidates, want %d", data, len(got[i].Top), len(top))
		}
		for k, c := range top {
			compareCandidate(t, data, got[i].Top[k], c)
		}
	}
}

// compareCandidate compares an id and its log-probability with their JSON.
func compareCandidate(t *testing.T, data []byte, got TokenProb, m map[string]json.RawMessage) {
	t.Helper()
	var want struct {
		ID      int32
		LogProb float32
		Prob    float32
	}
	for name, into := range map[string]any{"id": &want.ID, "logprob": &want.LogProb, "prob": &want.Prob} {
		if raw, ok := m[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				t.Fatalf("%q: %s: encoding/json: %v", data, name, err)
			}
		}
	}
	if got.ID != want.ID {
		t.Fatalf("%q: id %d, want %d", data, got.ID, want.ID)
	}
	_, given := m["prob"]
	if _, both := m["logprob"]; both && given {
		return // duplicates: the last one wins, which a map does not show
	}
	if given {
		want.LogProb = -math.MaxFloat32
		if want.Prob > 0 {
			want.LogProb = float32(math.Log(float64(want.Prob)))
		}
	}
	if got.LogProb != want.LogProb {
		t.Fatalf("%q: logprob %v, want %v", data, got.LogProb, want.LogProb)
	}
}
