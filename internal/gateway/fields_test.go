package gateway

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// newEcho returns the URL of a gateway whose backend returns the body of each request.
func newEcho(t *testing.T) string {
	t.Helper()
	return serveGateway(t, newGateway(t, newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body)
	}))))
}

func TestRejectsFieldsThatHarmTheServer(t *testing.T) {
	t.Parallel()
	url := newEcho(t)
	deep := strings.Repeat("(", 50000)
	schema := strings.Repeat(`{"items":`, 200) + "{}" + strings.Repeat("}", 200)
	const chat = "/v1/chat/completions"
	for name, tt := range map[string]struct{ path, fields string }{
		"lazy grammar":            {"/completion", `"grammar":"root ::= \"a\"","grammar_lazy":true,"grammar_triggers":[{"type":99,"value":"x"}]`},
		"triggers alone":          {"/completion", `"grammar_triggers":[{"type":99,"value":"x"}]`},
		"lazy grammar of a chat":  {chat, `"messages":[],"grammar_lazy":true`},
		"of responses":            {"/v1/responses", `"input":"x","grammar_triggers":[{}]`},
		"of infill":               {"/infill", `"grammar_lazy":true`},
		"nested grammar":          {"/completion", `"grammar":"root ::= ` + deep + `"`},
		"parser of a chat":        {chat, `"messages":[],"chat_parser":"x"`},
		"format of a chat":        {"/completion", `"chat_format":999`},
		"tokens to keep":          {"/completion", `"preserved_tokens":["x"]`},
		"messages of responses":   {"/v1/responses", `"input":"x","messages":[1]`},
		"many breakers":           {"/completion", `"dry_sequence_breakers":["a"` + strings.Repeat(`,"a"`, 20000) + `]`},
		"breakers of a chat":      {chat, `"messages":[],"dry_sequence_breakers":["a"` + strings.Repeat(`,"a"`, 100) + `]`},
		"long window":             {"/completion", `"repeat_last_n":268435456`},
		"long dry window":         {"/completion", `"dry_penalty_last_n":268435456`},
		"window of the past":      {"/completion", `"repeat_last_n":-2`},
		"many probabilities":      {"/completion", `"n_probs":100000000`},
		"no probabilities":        {"/completion", `"n_probs":-1`},
		"many log probabilities":  {chat, `"messages":[],"logprobs":true,"top_logprobs":100000000`},
		"number that is no int32": {"/completion", `"n_predict":1e12`},
		"fraction":                {"/completion", `"top_k":1.5`},
		"number that is no float": {"/completion", `"temperature":1e300`},
		"out of range":            {"/completion", `"temperature":1e999`},
		"text for a number":       {"/completion", `"n_predict":"1"`},
		"number for a text":       {"/completion", `"grammar":1`},
		"many prompts":            {"/completion", `"prompt":[""` + strings.Repeat(`,""`, 5000) + `]`},
		"deep schema":             {"/completion", `"json_schema":` + schema},
		"schema of a tool":        {chat, `"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":` + schema + `}}]`},
		"schema of a response":    {chat, `"messages":[],"response_format":{"type":"json_object","schema":` + schema + `}`},
		"schema in a schema":      {chat, `"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":` + schema + `}}`},
		"schema of Anthropic":     {"/v1/messages", `"messages":[],"tools":[{"name":"f","input_schema":` + schema + `}]`},
		"wide schema":             {"/completion", `"json_schema":{"enum":[0` + strings.Repeat(",0", maxSchemaNodes) + `]}`},
		"remote schema":           {"/completion", `"json_schema":{"$ref":"https://example.org/schema"}`},
		"pattern":                 {"/completion", `"json_schema":{"type":"string","pattern":"^` + strings.Repeat("(", 50) + strings.Repeat(")", 50) + `$"}`},
		"many stops":              {"/completion", `"stop":["a"` + strings.Repeat(`,"a"`, 1000) + `]`},
		"biases":                  {"/completion", `"logit_bias":[[1,1]` + strings.Repeat(`,[1,1]`, 20000) + `]`},
		"field twice":             {"/completion", `"n_predict":1,"n_predict":2`},
		"escaped name":            {"/completion", `"grammar_\u006cazy":true`},
	} {
		if got := send(t, "POST", url+tt.path, "{"+tt.fields+"}"); got.status != 400 {
			t.Errorf("%s: %d %.200s, want 400", name, got.status, got.body)
		}
	}
	for _, body := range []string{"[]", "1", `"x"`, "{}{}", "{"} {
		if got := send(t, "POST", url+"/completion", body); got.status != 400 {
			t.Errorf("%s: %d, want 400", body, got.status)
		}
	}
}

func TestForwardsOrdinaryFields(t *testing.T) {
	t.Parallel()
	url := newEcho(t)
	for path, body := range map[string]string{
		"/completion":          `{"prompt":[1,2,"x"],"n_predict":-1,"temperature":0.8,"top_k":40.0,"seed":4294967295,"stop":["\n"],"stream":true,"grammar":null,"grammar_lazy":false,"grammar_triggers":[],"logit_bias":[[15043,false],["x",1.5]],"samplers":["top_k"],"n_probs":10,"repeat_last_n":64,"cache_prompt":true,"id_slot":0,"lora":[{"id":0,"scale":0.5}],"json_schema":{"type":"object","properties":{"pattern":{"type":"string"}}}}`,
		"/v1/completions":      `{"prompt":["a","b"],"max_tokens":5,"logprobs":3,"echo":false,"n":2,"user":"me","model":"m","logit_bias":{"1":-100}}`,
		"/v1/chat/completions": `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":{"type":"string","minLength":1}}}}}],"tool_choice":{"type":"function"},"response_format":{"type":"text"},"stream_options":{"include_usage":true},"logprobs":true,"top_logprobs":20,"chat_template_kwargs":{"enable_thinking":false},"reasoning_effort":"low"}`,
		"/v1/responses":        `{"input":[{"role":"user","content":"x"}],"instructions":"y","max_output_tokens":9,"tools":[{"type":"web_search"},{"type":"function","name":"f","parameters":{}}],"reasoning":{"effort":"low"}}`,
		"/v1/messages":         `{"model":"m","system":[{"type":"text","text":"s"}],"messages":[{"role":"user","content":"x"}],"max_tokens":9,"thinking":{"type":"enabled","budget_tokens":99},"metadata":{"user_id":"u"}}`,
		"/v1/embeddings":       `{"input":["a","b"],"model":"m","encoding_format":"base64"}`,
		"/embedding":           `{"content":"a"}`,
		"/v1/rerank":           `{"query":"q","documents":["a","b"],"top_n":1}`,
		"/tokenize":            `{"content":"x","with_pieces":true}`,
		"/detokenize":          `{"tokens":[1,2,3]}`,
		"/slots/0":             `{"filename":"a.bin"}`,
	} {
		if got := send(t, "POST", url+path, body); got.status != 200 || got.body != body {
			t.Errorf("%s: %d, forwarded %s, want %s", path, got.status, got.body, body)
		}
	}
}

func TestRemovesUnknownFields(t *testing.T) {
	t.Parallel()
	got := send(t, "POST", newEcho(t)+"/completion", ` { "speculative.n_max": 9, "prompt" : "x" , "store": {"a": [1]}, "stream":false } `)
	if want := `{"prompt":"x","stream":false}`; got.status != 200 || got.body != want {
		t.Errorf("%d, forwarded %s, want %s", got.status, got.body, want)
	}
}

// llama-server merges the fields of a form into a JSON body.
func TestFiltersForms(t *testing.T) {
	t.Parallel()
	field := func(name, value string) string {
		return "--x\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
	}
	file := "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n"
	url := newEcho(t)
	got := send(t, "POST", url+"/v1/audio/transcriptions", field("grammar", "root ::= x")+file+field("language", "en")+field("grammar_lazy", "true")+"--x--\r\n", "Content-Type", "multipart/form-data; boundary=x")
	if got.status != 200 || strings.Contains(got.body, "grammar") || !strings.Contains(got.body, "RIFF") || !strings.Contains(got.body, "language") || strings.Contains(got.body, "..") {
		t.Errorf("%d, forwarded %s", got.status, got.body)
	}
	for name, contentType := range map[string]string{"JSON": "application/json", "no boundary": "multipart/form-data", "other form": "multipart/mixed; boundary=x"} {
		if got := send(t, "POST", url+"/v1/audio/transcriptions", file+"--x--\r\n", "Content-Type", contentType); got.status != 400 {
			t.Errorf("%s: %d", name, got.status)
		}
	}
}
