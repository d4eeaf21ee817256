//go:build e2e

package e2e

import (
	"bytes"
	"encoding/base64"
	"errors"
	"image/jpeg"
	"image/png"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/openai/openai-go/v3"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// projector writes a random projector for the random models of this package.
func projector(t *testing.T, o ggufgen.ProjectorOptions) string {
	t.Helper()
	b, err := ggufgen.Projector(o)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "mmproj.gguf")
	if err := b.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// picture returns an image whose size the projector has to scale.
func picture(seed uint64) rocm.Media {
	return rocm.Media{Data: imagegen.PNG(100, seed), Type: "image/png"}
}

// asJPEG encodes an image as JPEG.
func asJPEG(t *testing.T, m rocm.Media) rocm.Media {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := jpeg.Encode(&out, img, nil); err != nil {
		t.Fatal(err)
	}
	return rocm.Media{Data: out.Bytes()}
}

// answered is the result of a generation.
type answered struct {
	ids    []int32
	prompt int // tokens
}

func generated(t *testing.T, model *rocm.Model, r rocm.Request) answered {
	t.Helper()
	r.MaxTokens = 12
	stream := model.Stream(t.Context(), r)
	var a answered
	for token := range stream.All() {
		a.ids = append(a.ids, token.ID)
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	a.prompt = stream.Metrics().PromptTokens
	return a
}

// TestImages passes images to a random model through a random projector. The text
// has no meaning, but it depends on the images.
func TestImages(t *testing.T) {
	shape := ggufgen.ProjectorOptions{Seed: 9}
	s := rocm.Settings{}
	s.Context, s.Projector = 2048, projector(t, shape)
	model, err := (&rocm.Backend{}).Load(t.Context(), tiny(t, "llama-spm", 3), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := model.Close(); err != nil {
			t.Errorf("closing: %v", err)
		}
	})
	if got := model.Modalities(); !got.Vision || got.Audio {
		t.Fatalf("it reads %+v", got)
	}
	const prompt = "What is this?"
	one, two := picture(1), picture(2)

	t.Run("tokens", func(t *testing.T) {
		text := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt("\n" + prompt)}) // the marker is on a line of its own
		with := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt(prompt, one)})
		if len(with.ids) == 0 || with.prompt != text.prompt+shape.Tokens() {
			t.Errorf("%d tokens with an image of %d, %d without", with.prompt, shape.Tokens(), text.prompt)
		}
		if again := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt(rocm.MediaMarker+"\n"+prompt, one)}); !slices.Equal(again.ids, with.ids) {
			t.Errorf("%v, with its marker written out %v", with.ids, again.ids)
		}
		other := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt(prompt, two)})
		if slices.Equal(other.ids, with.ids) || slices.Equal(text.ids, with.ids) {
			t.Errorf("%v for an image, %v for another, %v for none", with.ids, other.ids, text.ids)
		}
		both := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt(prompt, one, two)})
		swapped := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt(prompt, two, one)})
		if slices.Equal(both.ids, swapped.ids) || both.prompt <= with.prompt+shape.Tokens() {
			t.Errorf("%v of %d tokens for two images, %v the other way round", both.ids, both.prompt, swapped.ids)
		}
		if got := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt(prompt, asJPEG(t, one))}); got.prompt != with.prompt {
			t.Errorf("as JPEG it has %d tokens, as PNG %d", got.prompt, with.prompt)
		}
	})
	t.Run("logits", func(t *testing.T) {
		first, again, other := nextLogits(t, model, one), nextLogits(t, model, one), nextLogits(t, model, two)
		if !slices.Equal(first, again) {
			t.Error("one image gives two distributions")
		}
		if d := farthest(first, other); d < 0.01 {
			t.Errorf("two images change no log-probability by more than %g", d)
		}
	})
	t.Run("chat", func(t *testing.T) {
		conversation := func(first rocm.Media) rocm.Request {
			return rocm.Request{Prompt: rocm.MediaChatPrompt([]rocm.MediaMessage{
				{Message: inference.Message{Role: "user", Content: "This is " + rocm.MediaMarker + "."}, Media: []rocm.Media{first}},
				{Message: inference.Message{Role: "assistant", Content: "I see."}},
				{Message: inference.Message{Role: "user", Content: "And this?"}, Media: []rocm.Media{two}},
			})}
		}
		a, b := generated(t, model, conversation(one)), generated(t, model, conversation(two))
		if a.prompt != b.prompt || a.prompt < 2*shape.Tokens() || slices.Equal(a.ids, b.ids) {
			t.Errorf("%v of %d tokens, with another first image %v of %d", a.ids, a.prompt, b.ids, b.prompt)
		}
	})
	t.Run("mistakes", func(t *testing.T) { imageMistakes(t, model, one) })
}

// nextLogits returns the log-probabilities after an image.
func nextLogits(t *testing.T, model *rocm.Model, m rocm.Media) []float32 {
	t.Helper()
	props, err := model.API().Props(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	vocab := model.Info().VocabSize
	res, err := model.API().Complete(t.Context(), &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{{Text: "a " + props.MediaMarker + " is", Media: [][]byte{m.Data}}},
		Probs:   vocab, MaxTokens: new(1), Temperature: new(float32(0)), CachePrompt: new(false),
		Extra: map[string]any{"logit_bias": []any{[]any{"a", 1e6}}}, // some complete letter
	})
	if err != nil {
		t.Fatal(err)
	}
	logits, err := res[0].Positions[0].Logits(vocab)
	if err != nil {
		t.Fatal(err)
	}
	return logits
}

// farthest returns the largest difference between two distributions.
func farthest(a, b []float32) float64 {
	var most float64
	for i := range a {
		most = max(most, math.Abs(float64(a[i])-float64(b[i])))
	}
	return most
}

// imageMistakes checks the errors for unusable images: the server's, and those before a
// request is sent.
func imageMistakes(t *testing.T, model *rocm.Model, good rocm.Media) {
	for name, bad := range map[string][]byte{"cut": good.Data[:len(good.Data)/2], "noise": []byte("this is no image")} {
		stream := model.Stream(t.Context(), rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: bad}), GenerateConfig: inference.GenerateConfig{MaxTokens: 1}})
		for range stream.All() {
			t.Errorf("%s: it gives tokens", name)
		}
		var api *llamaapi.APIError
		if err := stream.Err(); !errors.Is(err, rocm.ErrMedia) || !errors.As(err, &api) || api.Status != 400 || api.Message != "Failed to load image or audio file" {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The server's error if nothing is counted before.
	_, err := model.API().Complete(t.Context(), &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{{Text: "no marker", Media: [][]byte{good.Data}}}, MaxTokens: new(1),
	})
	if !errors.Is(err, llamaapi.ErrInvalidRequest) || !strings.Contains(err.Error(), "Failed to tokenize prompt") {
		t.Errorf("an image without a marker: %v", err)
	}
	if got := generated(t, model, rocm.Request{Prompt: rocm.TextPrompt("x", good)}); len(got.ids) == 0 {
		t.Error("after them it gives no tokens")
	}
}

// TestImagesWithoutAProjector checks that the library rejects images before it sends
// anything, and recognises the server's own error.
func TestImagesWithoutAProjector(t *testing.T) {
	model := load(t, tiny(t, "llama-spm", 3))
	for token := range model.GenerateMedia(t.Context(), "x", []rocm.Media{picture(1)}) {
		t.Errorf("it says %q", token.Text)
	}
	if err := model.Err(); !errors.Is(err, rocm.ErrNoProjector) || !strings.Contains(err.Error(), "--mmproj") {
		t.Errorf("got %v", err)
	}
	_, err := model.API().Complete(t.Context(), &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{{Text: "x", Media: [][]byte{picture(1).Data}}}, MaxTokens: new(1),
	})
	if !errors.Is(err, llamaapi.ErrNotSupported) {
		t.Errorf("the server says %v", err)
	}
}

// TestProjectorOfAnotherModel uses a projector of the wrong width, which only the server
// detects.
func TestProjectorOfAnotherModel(t *testing.T) {
	s := rocm.Settings{}
	s.Projector = projector(t, ggufgen.ProjectorOptions{Output: 96})
	_, err := (&rocm.Backend{}).Load(t.Context(), tiny(t, "llama-spm", 3), s)
	if !errors.Is(err, supervise.ErrModelInvalid) || !strings.Contains(err.Error(), "mismatch between text model (n_embd = 64) and mmproj (n_embd = 96)") ||
		!strings.Contains(err.Error(), "made for this model") {
		t.Errorf("got %v", err)
	}
}

// TestCommandsShowImages passes images on the command line and through OpenAI's API.
func TestCommandsShowImages(t *testing.T) {
	// The vocabulary has the tokens of the template, so that an image changes no other
	// token.
	model, mmproj := tiny(t, "qwen2", 3), projector(t, ggufgen.ProjectorOptions{Seed: 9})
	run := func(seed uint64) string {
		file := filepath.Join(t.TempDir(), "picture.png")
		if err := os.WriteFile(file, picture(seed).Data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(t.Context(), cli(t), "run", model, "--mmproj", mmproj, "--image", file,
			"--raw", "--temperature", "0", "-n", "12", "--context", "2048", "-p", "What is this?").Output()
		if err != nil {
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				t.Logf("%s", exit.Stderr)
			}
			t.Fatal(err)
		}
		return string(out)
	}
	if one, two := run(1), run(2); one == two {
		t.Errorf("both images are %q", one)
	}

	s := serve(t, "--mmproj", mmproj, model)
	client := s.client("none needed")
	ask := func(parts ...openai.ChatCompletionContentPartUnionParam) *openai.ChatCompletion {
		t.Helper()
		got, err := client.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{
			Model: "any", Temperature: openai.Float(0), MaxTokens: openai.Int(4),
			Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage(parts)},
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	words := openai.TextContentPart("What is this?")
	uri := "data:image/png;base64," + base64.StdEncoding.EncodeToString(picture(1).Data)
	with := ask(words, openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: uri})).Usage.PromptTokens
	if without := ask(words).Usage.PromptTokens; with != without+int64((ggufgen.ProjectorOptions{}).Tokens()) {
		t.Errorf("%d tokens with an image, %d without", with, without)
	}
	// The gateway rejects an address; llama-server would fetch it.
	_, err := client.Chat.Completions.New(t.Context(), openai.ChatCompletionNewParams{
		Model: "any",
		Messages: []openai.ChatCompletionMessageParamUnion{openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{
			openai.ImageContentPart(openai.ChatCompletionContentPartImageImageURLParam{URL: s.url + "/health"}),
		})},
	})
	var apiError *openai.Error
	if !errors.As(err, &apiError) || apiError.StatusCode != http.StatusBadRequest || !strings.Contains(apiError.Message, "are not fetched") {
		t.Errorf("an image by its address: %v", err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}
