package gateway

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// Media must be inside the request: the gateway and llama-server fetch no address.
func TestRejectsRemoteMedia(t *testing.T) {
	t.Parallel()
	var fetched atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetched.Add(1) }))
	defer other.Close()
	url := serveGateway(t, newGateway(t, newFakeBackend(t, fakellama.Script{Vision: true})))
	uri := "data:image/png;base64," + base64.StdEncoding.EncodeToString(imagegen.PNG(16, 1))
	part := func(p string) string { return `{"messages":[{"role":"user","content":[` + p + `]}],"max_tokens":2}` }
	for name, tt := range map[string]struct {
		path, body string
		status     int
	}{
		"data":       {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + uri + `"}}`), 200},
		"words":      {"/v1/chat/completions", part(`{"type":"text","text":"see http://example.org"},{"type":"text","text":"\u0068ttp"}`), 200},
		"remote":     {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + other.URL + `"}}`), 400},
		"escaped":    {"/chat/completions", part(`{"type":"image_url","image_url":{"url":"\u0068ttp` + other.URL[4:] + `"}}`), 400},
		"twice":      {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"` + uri + `","url":"` + other.URL + `"}}`), 400},
		"template":   {"/apply-template", part(`{"type":"image_url","image_url":{"url":"` + other.URL + `"}}`), 400},
		"sound":      {"/v1/chat/completions", part(`{"type":"input_audio","input_audio":{"data":"` + other.URL + `"}}`), 400},
		"video":      {"/v1/chat/completions", part(`{"type":"video_url","video_url":{"url":"` + other.URL + `"}}`), 400},
		"responses":  {"/v1/responses", `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"` + other.URL + `"}]}]}`, 400},
		"anthropic":  {"/v1/messages", part(`{"type":"image","source":{"type":"url","url":"` + other.URL + `"}}`), 400},
		"a file":     {"/v1/chat/completions", part(`{"type":"image_url","image_url":{"url":"file:///etc/passwd"}}`), 400},
		"no json":    {"/v1/chat/completions", `{"image_url":{"url":"` + other.URL + `"`, 400},
		"two values": {"/v1/chat/completions", part(`{"type":"text","text":"http"}`) + "]", 400},
		"a BOM":      {"/v1/chat/completions", "\ufeff" + part(`{"type":"image_url","image_url":{"url":"`+other.URL+`"}}`), 400},
	} {
		if got := send(t, http.MethodPost, url+tt.path, tt.body); got.status != tt.status {
			t.Errorf("%s: %d %s, want %d", name, got.status, got.body, tt.status)
		}
	}
	for header, value := range map[string]string{"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"} {
		if got := send(t, http.MethodPost, url+"/v1/chat/completions", "x", header, value); got.status != 400 {
			t.Errorf("%s %s: %d %s", header, value, got.status, got.body)
		}
	}
	if n := fetched.Load(); n != 0 {
		t.Errorf("the address was fetched %d times", n)
	}
}

// Addresses are rejected only where llama-server would fetch them.
func TestAddressesThatAreNotMediaPass(t *testing.T) {
	t.Parallel()
	url := serveGateway(t, newGateway(t, newBackend(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))))
	const at = `"http://example.org/a.png"`
	for name, tt := range map[string]struct{ path, body string }{
		"arguments of a tool call": {"/v1/chat/completions", `{"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":{"image_url":` + at + `}}}]}]}`},
		"input of a tool":          {"/v1/messages", `{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{"image_url":` + at + `,"source":{"url":` + at + `}}}]}]}`},
		"default of a schema":      {"/v1/chat/completions", `{"messages":[],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"image_url":{"type":"string","default":` + at + `},"source":{"properties":{"url":{"default":` + at + `}}}}}}}]}`},
		"schema of Anthropic":      {"/v1/messages", `{"messages":[],"tools":[{"name":"f","input_schema":{"properties":{"image_url":{"default":` + at + `}}}}]}`},
		"text":                     {"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","text":` + at + `,"image_url":` + at + `}]}]}`},
		"text of a message":        {"/v1/chat/completions", `{"messages":[{"role":"user","content":` + at + `,"image_url":` + at + `}]}`},
		"text of responses":        {"/v1/responses", `{"input":` + at + `}`},
		"text block":               {"/v1/responses", `{"input":[{"role":"user","content":[{"type":"input_text","text":` + at + `}]}]}`},
		"metadata":                 {"/v1/responses", `{"input":"x","metadata":{"image_url":` + at + `}}`},
		"template":                 {"/v1/chat/completions", `{"messages":[],"chat_template_kwargs":{"image_url":` + at + `}}`},
		"schema of the answer":     {"/v1/chat/completions", `{"messages":[],"response_format":{"type":"json_schema","json_schema":{"schema":{"properties":{"image_url":{"const":` + at + `}}}}}}`},
	} {
		if got := send(t, http.MethodPost, url+tt.path, tt.body); got.status != 200 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for name, tt := range map[string]struct{ path, body string }{
		"result of a tool":     {"/v1/messages", `{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":` + at + `}}]}]}]}`},
		"output of a function": {"/v1/responses", `{"input":[{"type":"function_call_output","call_id":"1","output":[{"type":"input_image","image_url":` + at + `}]}]}`},
		"counting":             {"/v1/messages/count_tokens", `{"messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":` + at + `}}]}]}`},
		"messages twice":       {"/v1/chat/completions", `{"messages":[],"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":` + at + `}}]}]}`},
		"type twice":           {"/v1/chat/completions", `{"messages":[{"role":"user","content":[{"type":"text","type":"image_url","image_url":{"url":` + at + `}}]}]}`},
		"both in one request":  {"/v1/responses", `{"input":"x","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":` + at + `}}]}]}`},
	} {
		if got := send(t, http.MethodPost, url+tt.path, tt.body); got.status != 400 {
			t.Errorf("%s: %d %s, want 400", name, got.status, got.body)
		}
	}
}

// FuzzRemoteMedia compares the checks with llama-server's own search for media in the
// decoded messages.
func FuzzRemoteMedia(f *testing.F) {
	for _, s := range []string{
		`{"messages":[{"content":[{"type":"image_url","image_url":{"url":"http://x"}}]}]}`,
		`{"messages":[{"content":[{"type":"input_audio","input_audio":{"data":"x","url":"\u0068ttp"}}]}]}`,
		`{"messages":[{"content":[{"type":"video_url","video_url":{"data":"http"}},{"type":"text","text":"http"}]}]}`,
		`{"messages":[{"content":"http"}],"image_url":"http"}`, `{"messages":[1,{"content":[null]}]}`, `[{"image_url":"http"}]`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		_, _, err := filterFields(body, chatFields()) // must not panic
		var value any
		if json.Unmarshal(body, &value) == nil && fetches(value) && err == nil {
			t.Errorf("%q: remote media not rejected", body)
		}
	})
}

// fetches reports whether llama-server would fetch an address, as in
// oaicompat_chat_params_parse (server-common.cpp).
func fetches(body any) bool {
	member := func(v any, name string) any {
		object, _ := v.(map[string]any)
		return object[name]
	}
	messages, _ := member(body, "messages").([]any)
	for _, message := range messages {
		parts, _ := member(message, "content").([]any)
		for _, part := range parts {
			kind, _ := member(part, "type").(string)
			switch kind {
			case "image_url", "input_audio", "input_video", "video_url":
				for _, name := range []string{"url", "data"} {
					if text, ok := member(member(part, kind), name).(string); ok && strings.HasPrefix(text, "http") {
						return true
					}
				}
			}
		}
	}
	return false
}
