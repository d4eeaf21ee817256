package llamaapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
	"unicode/utf8"
)

// eventSeeds returns equivalent events in different forms, and malformed ones.
func eventSeeds() []string {
	deep := strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1)
	const usual = `{"index":0,"content":" town","tokens":[3102],"stop":false,"id_slot":-1,"tokens_predicted":4,"tokens_evaluated":4}`
	return []string{
		usual,
		`{"index":1,"content":"\"\u00e9","tokens":[0],"stop":false,"id_slot":12,"tokens_predicted":0,"tokens_evaluated":999999999}`,
		`{"index":01,"content":"","tokens":[1],"stop":false,"id_slot":0,"tokens_predicted":0,"tokens_evaluated":0}`,
		`{"index":0,"content":"","tokens":[99999999999],"stop":false,"id_slot":0,"tokens_predicted":0,"tokens_evaluated":0}`,
		`{"index":0,"content":"","tokens":[1],"stop":false,"id_slot":-0,"tokens_predicted":0,"tokens_evaluated":12345678901}`,
		`{"index":0,"content":"","tokens":[1,2],"stop":false,"id_slot":-1,"tokens_predicted":0,"tokens_evaluated":0}`,
		`{"index":0,"content":"","tokens":[],"stop":false,"id_slot":-1,"tokens_predicted":0,"tokens_evaluated":0} x`,
		`{"tokens_predicted":4,"timings":{"cache_n":0,"prompt_ms":180.005},"stop":true,"stop_type":"limit","stopping_word":"x","truncated":true,"tokens_cached":9,"model":"m"}`,
		" {\t\"stop\" :\r\n false , \"content\" : \"a\" } ",
		`{}`, `{ }`, `{"a":{},"b":[],"c":[[],{}]}`,
		`{"content":"\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00"}`,
		`{"content":"\ud83d"}`, `{"content":"\ud83dx"}`, `{"content":"\ude00\ud83d"}`, `{"content":"\ud83d\u0041"}`, `{"content":"\ud83d\ud83d\ude00"}`,
		"{\"content\":\"h\xc3\xa9\xf0\x9f\x98\x80\"}", "{\"content\":\"\xff\xc3\"}", "{\"content\":\"\xed\xa0\x80\"}", "{\"\xff\":1}",
		`{"c\u006fntent":"escaped name"}`, `{"content":"a","content":"b"}`, `{"content":"a","content":null}`, `{"Content":"other name"}`,
		`{"tokens":[1,2,3]}`, `{"tokens":[]}`, `{"tokens":null}`, `{"tokens":[null]}`, `{"tokens":[-1, 2147483647 ,-2147483648]}`,
		`{"tokens":[2147483648]}`, `{"tokens":[1.0]}`, `{"tokens":[1e2]}`, `{"tokens":[-0]}`, `{"tokens":[01]}`, `{"tokens":[1,]}`, `{"tokens":[1 2]}`,
		`{"tokens":5}`, `{"tokens":"a"}`, `{"content":5}`, `{"content":null,"stop":null,"index":null}`, `{"stop":1}`, `{"stop":"true"}`,
		`{"index":9223372036854775807}`, `{"index":9223372036854775808}`, `{"index":-9223372036854775808}`, `{"index":123456789012}`, `{"index":0123}`,
		`{"unknown":-1.5e+10,"x":0.0,"y":-0,"z":1E5,"w":1e-5}`, `{"x":.5}`, `{"x":1.}`, `{"x":1e}`, `{"x":+1}`, `{"x":-}`, `{"x":00}`, `{"x":1.e1}`,
		`{"x":tru}`, `{"x":nul}`, `{"x":True}`, `{"x":NaN}`, `{"x":'a'}`, `{"x"}`, `{"x":}`, `{"x":1,}`, `{,}`, `{"x":1}{}`, `{"x":1} x`, `{x:1}`,
		`{"x":"a` + "\n" + `"}`, `{"x":"a` + "\x00" + `"}`, `{"x":"\x"}`, `{"x":"\u12g4"}`, `{"x":"\u123"}`, `{"x":"`, `{"x":"\`, `{"x":"\u`,
		`{`, ``, ` `, `[]`, `null`, `"a"`, `{"x":[}`, `{"x":{]}`, `{"x":[1}`, "\xef\xbb\xbf{}",
		`{"error":{"code":500,"message":"boom","type":"server_error"}}`,
		`{"completion_probabilities":[{"id":1,"logprob":-0.5}],"prompt_progress":{"total":5}}`,
		`{"x":` + deep + `}`, `{"x":[` + deep + `]}`, `{"timings":` + deep + `}`, `{"timings":[` + deep + `]}`,
		`{"content":"` + strings.Repeat("long ", 5000) + `"}`,
		// The usual form with trailing text, or with numbers that are too large.
		usual + ` x`, usual + `{}`, usual + `}`, usual + ` `,
		strings.Replace(usual, `"index":0`, `"index":18446744073709551617`, 1),
		strings.Replace(usual, `[3102]`, `[18446744073709551617]`, 1),
		strings.Replace(usual, `"tokens_predicted":4`, `"tokens_predicted":18446744073709551617`, 1),
		`{"tokens":[1,2,3],"tokens":[4]}`, `{"tokens":[1],"tokens":null}`, `{"tokens":[1],"tokens":[]}`,
	}
}

// compare checks that both decoders have the same result.
func compare(t *testing.T, data []byte) {
	t.Helper()
	var got event
	gotErr := got.decode(data)
	want, wantErr := refDecode(data)
	if (gotErr == nil) != (wantErr == nil) {
		t.Fatalf("%.300q:\nours:          %v\nencoding/json: %v", data, gotErr, wantErr)
	}
	if gotErr != nil {
		return
	}
	if d := differ(got, want); d != "" {
		t.Fatalf("%.300q:\n%s", data, d)
	}
	for _, s := range []string{got.content, got.stopType, got.stopWord, got.model} {
		if !utf8.ValidString(s) {
			t.Fatalf("%.300q: text %q is not valid UTF-8", data, s)
		}
	}
}

func TestDecodeMatchesEncodingJSON(t *testing.T) {
	for _, s := range eventSeeds() {
		compare(t, []byte(s))
	}
	// Every prefix of a valid event is invalid, or equivalent.
	for _, s := range eventSeeds()[:8] {
		for i := range s {
			compare(t, []byte(s[:i]))
		}
	}
}

func FuzzDecodeMatchesEncodingJSON(f *testing.F) {
	for _, s := range eventSeeds() {
		if len(s) < 2000 {
			f.Add([]byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { compare(t, data) })
}

// FuzzDecodeGenerated puts fuzzed values into well-formed events, which random bytes rarely
// are.
func FuzzDecodeGenerated(f *testing.F) {
	f.Add("text", int32(5), int64(7), "unknown", []byte("raw \xff"), true)
	f.Add("\u2028<>&", int32(-5), int64(math.MinInt64), "content", []byte(`\ud83d`), false)
	f.Fuzz(func(t *testing.T, text string, id int32, n int64, name string, raw []byte, indent bool) {
		built := map[string]any{
			"content": text, "tokens": []int32{id, id ^ 1}, "tokens_predicted": n, "stop": indent,
			"stopping_word": string(raw), "timings": map[string]any{name: text, "n": n}, "x" + name: []any{text, n, nil, indent},
		}
		b, err := json.Marshal(built)
		if err != nil {
			t.Fatal(err)
		}
		if indent {
			var out bytes.Buffer
			if err := json.Indent(&out, b, "\t", "\r\n"); err != nil {
				t.Fatal(err)
			}
			b = out.Bytes()
		}
		compare(t, b)
		// The raw bytes inside a string, as a faulty server could send them.
		compare(t, append(append([]byte(`{"content":"`), raw...), `","stop":true}`...))
	})
}

// streamSeeds returns streams of every form.
func streamSeeds() []string {
	return []string{
		"data: {\"a\":1}\n\ndata: {\"a\":2}\n\n",
		"data: one\r\n\r\ndata: two\r\n\r\n",
		":\n\ndata: x\n\n: ping\n\n:\n\n", ":\r\n\r\n",
		"data: a\ndata: b\n\n", "data: a\r\ndata:b\ndata\n\n", "data:\n\n", "data\n\n", "data: \n\n", "data:  two blanks\n\n",
		"event: x\nid: 5\nretry: 10\ndata: y\n\n", "event: only\n\n", "data2: no\n\n", "dat: no\n\n", "datax\n\n",
		"\n\n\n", "", "data: torn", "data: torn\n", "data: torn\r\n", ": torn", "\xef\xbb\xbfdata: bom\n\n", "\xef\xbb\xbf\n",
		"data: a\n: comment between\ndata: b\nevent: z\n\n", "data: a\rb\n\n", "\r\n\r\ndata: x\n\n",
		"data: " + strings.Repeat("long", 20000) + "\n\ndata: short\n\n",
	}
}

func compareStream(t *testing.T, stream, sizes []byte) {
	t.Helper()
	want, torn := refEvents(stream)
	s := newSSEReader(&choppy{b: bytes.Clone(stream), sizes: sizes}, 1<<20)
	for i := 0; ; i++ {
		data, err := s.next()
		if err != nil {
			wantErr := io.EOF
			if torn {
				wantErr = io.ErrUnexpectedEOF
			}
			if !errors.Is(err, wantErr) || i != len(want) {
				t.Fatalf("%.200q in pieces of %v: %v after %d events, want %v after %d", stream, sizes, err, i, wantErr, len(want))
			}
			return
		}
		if i >= len(want) || !bytes.Equal(data, want[i]) {
			t.Fatalf("%.200q in pieces of %v: event %d is %.200q", stream, sizes, i, data)
		}
	}
}

func TestEventsSplitAnywhere(t *testing.T) {
	for _, s := range streamSeeds() {
		for _, sizes := range [][]byte{nil, {0}, {1}, {2, 0}, {4, 1, 0}, {255}} {
			compareStream(t, []byte(s), sizes)
		}
	}
}

func FuzzEventsSplitAnywhere(f *testing.F) {
	for _, s := range streamSeeds() {
		if len(s) < 2000 {
			f.Add([]byte(s), []byte{3, 0, 7})
		}
	}
	f.Fuzz(compareStream)
}

func TestEventTooLarge(t *testing.T) {
	for _, limit := range []int{1, 100, 20000, 100000} {
		s := newSSEReader(strings.NewReader("data: ok\n\ndata: "+strings.Repeat("x", 200000)+"\n\n"), limit)
		var err error
		for n := 0; err == nil; n++ {
			if _, err = s.next(); n > 1 {
				t.Fatalf("limit %d: the large event came through", limit)
			}
		}
		if !errors.Is(err, ErrEventTooLarge) {
			t.Errorf("limit %d: %v", limit, err)
		}
		if len(s.buf) > max(limit, 1) {
			t.Errorf("limit %d: buffer of %d", limit, len(s.buf))
		}
	}
}

// TestReaderThatReturnsNothing uses a reader that returns neither bytes nor an error.
func TestReaderThatReturnsNothing(t *testing.T) {
	s := newSSEReader(idleReader{}, 1000)
	if _, err := s.next(); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("err = %v", err)
	}
}

type idleReader struct{}

func (idleReader) Read([]byte) (int, error) { return 0, nil }

func TestDecodeAllocations(t *testing.T) {
	data := []byte(eventSeeds()[0])
	var e event
	if err := e.decode(data); err != nil { // allocates the ids
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(200, func() {
		if err := e.decode(data); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("%v allocations an event, want the text alone", n)
	}
}
