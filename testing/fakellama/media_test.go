package fakellama

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// show sends a prompt of text and images, and returns the answer's text and the prompt's
// number of tokens.
func show(t *testing.T, url, text string, images ...[]byte) (answer string, prompt int) {
	t.Helper()
	body, err := json.Marshal(map[string]any{
		"prompt":      map[string]any{"prompt_string": text, "multimodal_data": images},
		"temperature": 0, "n_predict": 30,
	})
	if err != nil {
		t.Fatal(err)
	}
	code, got, err := post(t.Context(), t, url+"/completion", string(body))
	var out struct {
		Content   string
		Evaluated int `json:"tokens_evaluated"`
	}
	if err != nil || code != 200 || json.Unmarshal([]byte(got), &out) != nil {
		t.Fatalf("%d %s, %v", code, got, err)
	}
	return out.Content, out.Evaluated
}

func TestImages(t *testing.T) {
	const marker = "<here>"
	_, url := serve(t, Script{Vision: true, MediaMarker: marker})
	red, blue := imagegen.PNG(16, 1), imagegen.PNG(16, 2)
	first, n := show(t, url, "what is "+marker, red)
	again, _ := show(t, url, "what is "+marker, red)
	other, m := show(t, url, "what is "+marker, blue)
	if first != again || first == other || n != m {
		t.Errorf("%q, %q, other image %q; %d and %d tokens", first, again, other, n, m)
	}
	if _, without := show(t, url, "what is "); n != without+ImageTokens {
		t.Errorf("%d tokens with an image, %d without", n, without)
	}
	if _, two := show(t, url, "what is "+marker+marker, red, blue); two != n+ImageTokens {
		t.Errorf("%d tokens with two images", two)
	}
	if one, two := fmt.Sprint(show(t, url, marker+marker, red, blue)), fmt.Sprint(show(t, url, marker+marker, blue, red)); one == two {
		t.Errorf("the order of images has no effect: %s", one)
	}

	uri := "data:image/png;base64," + base64.StdEncoding.EncodeToString(red)
	content := `{"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"` + uri + `"}},{"type":"text","text":"b"},{"type":"text","text":"c"}]}]}`
	if _, got, err := post(t.Context(), t, url+"/apply-template", content); err != nil || !strings.Contains(got, `a`+marker+`b\nc`) {
		t.Errorf("the template gives %s, %v", got, err)
	}
	_, plain, err := post(t.Context(), t, url+"/v1/chat/completions", `{"messages":[{"role":"user","content":"ab\nc"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	code, got, err := post(t.Context(), t, url+"/v1/chat/completions", content)
	if err != nil || code != 200 || promptTokens(t, got) != promptTokens(t, plain)+ImageTokens {
		t.Errorf("%d %s, without the image %s, %v", code, got, plain, err)
	}
}

func promptTokens(t *testing.T, answer string) int {
	t.Helper()
	var out struct {
		Usage struct {
			Prompt int `json:"prompt_tokens"`
		}
	}
	if err := json.Unmarshal([]byte(answer), &out); err != nil {
		t.Fatal(err)
	}
	return out.Usage.Prompt
}

func TestInvalidImages(t *testing.T) {
	_, url := serve(t, Script{Vision: true, MediaMarker: "<here>"})
	_, blind := serve(t, Script{})
	good := base64.StdEncoding.EncodeToString(imagegen.PNG(8, 1))
	prompt := func(text, image string) string {
		return `{"prompt":{"prompt_string":"` + text + `","multimodal_data":["` + image + `"]}}`
	}
	chat := func(part string) string {
		return `{"messages":[{"role":"user","content":[` + part + `]}]}`
	}
	link := func(uri string) string { return chat(`{"type":"image_url","image_url":{"url":"` + uri + `"}}`) }
	for name, tc := range map[string]struct {
		url, body, want string
		code            int
	}{
		"no image":        {url + "/completion", prompt("<here>", "AAAA"), "Failed to load image", 400},
		"no base64":       {url + "/completion", prompt("<here>", "!"), "Failed to load image", 400},
		"no marker":       {url + "/completion", prompt("x", good), "Failed to tokenize", 400},
		"two markers":     {url + "/completion", prompt("<here><here>", good), "Failed to tokenize", 400},
		"no projector":    {blind + "/completion", prompt("<here>", good), "does not support multimodal", 400},
		"cannot see":      {blind + "/v1/chat/completions", link("data:image/png;base64," + good), "provide the mmproj", 500},
		"remote":          {url + "/v1/chat/completions", link("http://127.0.0.1:1/x.png"), "download", 500},
		"file":            {url + "/v1/chat/completions", link("file:///x.png"), "--media-path", 400},
		"not an image":    {url + "/v1/chat/completions", link("data:text/plain;base64,AAAA"), "Invalid uri format", 400},
		"no comma":        {url + "/v1/chat/completions", link("data:image/png;base64"), "Invalid uri-encoded", 400},
		"percent":         {url + "/v1/chat/completions", link("data:image/png,AAAA"), "must be base64", 400},
		"damaged":         {url + "/v1/chat/completions", link("data:image/png;base64,AAAA"), "Failed to load image", 400},
		"unknown part":    {url + "/v1/chat/completions", chat(`{"type":"odd"}`), "unsupported content", 400},
		"content of five": {url + "/v1/chat/completions", `{"messages":[{"role":"user","content":5}]}`, "string or an array", 400},
		"no content":      {url + "/apply-template", `{"messages":[{"role":"user"}]}`, "must contain 'content'", 400},
	} {
		if code, got, err := post(t.Context(), t, tc.url, tc.body); err != nil || code != tc.code || !strings.Contains(got, tc.want) {
			t.Errorf("%s: %d %s, %v", name, code, got, err)
		}
	}
}
