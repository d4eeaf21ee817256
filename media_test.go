//go:build linux && amd64

package rocm_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// projector writes a tiny projector and returns its path.
func projector(t *testing.T) string {
	t.Helper()
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "mmproj-tiny.gguf")
	if err := b.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// loadWithProjector loads the fake model with a tiny projector.
func loadWithProjector(t *testing.T, s rocm.Settings) *rocm.Model {
	t.Helper()
	s.Projector = projector(t)
	return loadWith(t, fakellama.Script{}, s)
}

func images(seeds ...uint64) []rocm.Media {
	var out []rocm.Media
	for _, s := range seeds {
		out = append(out, rocm.Media{Data: imagegen.PNG(16, s), Type: "image/png"})
	}
	return out
}

// The answer depends on every image and on its position.
func TestAnswerDependsOnEachImage(t *testing.T) {
	m := loadWithProjector(t, rocm.Settings{})
	if got := m.Modalities(); got != (llamaapi.Modalities{Vision: true}) {
		t.Errorf("it reads %+v", got)
	}
	few := inference.WithMaxTokens(20)
	say := func(prompt string, media ...rocm.Media) (string, int) {
		t.Helper()
		got := text(collect(m.GenerateMedia(t.Context(), prompt, media, few)))
		if err := m.Err(); err != nil {
			t.Fatalf("%q: %v", prompt, err)
		}
		return got, m.Metrics().PromptTokens
	}
	first, n := say("What is "+rocm.MediaMarker+"?", images(1)...)
	if second, _ := say("What is "+rocm.MediaMarker+"?", images(1)...); second != first {
		t.Errorf("%q, then %q", first, second)
	}
	if other, same := say("What is "+rocm.MediaMarker+"?", images(2)...); other == first || same != n {
		t.Errorf("another image: %q with %d tokens, want other than %q with %d", other, same, first, n)
	}
	if _, without := say("What is ?"); n != without+fakellama.ImageTokens {
		t.Errorf("%d tokens with an image, %d without", n, without)
	}
	if before, _ := say("What?", images(1)...); before == "" {
		t.Error("no answer for an image before the text")
	} else if marked, _ := say(rocm.MediaMarker+"\nWhat?", images(1)...); marked != before {
		t.Errorf("%q with the marker, %q without", marked, before)
	}
	if one, _ := say("Compare.", images(1, 2)...); one == "" {
		t.Error("no answer for two images")
	} else if two, _ := say("Compare.", images(2, 1)...); one == two {
		t.Errorf("the order of images has no effect: %q", one)
	}
	// Without images the marker is plain text.
	if plain := text(collect(m.Generate(t.Context(), "What is "+rocm.MediaMarker+"?", few))); plain == first || m.Err() != nil {
		t.Errorf("without an image: %q, %v", plain, m.Err())
	}
}

func TestImagesInAChat(t *testing.T) {
	m := loadWithProjector(t, rocm.Settings{})
	turn := func(role, content string, media ...rocm.Media) rocm.MediaMessage {
		return rocm.MediaMessage{Message: inference.Message{Role: role, Content: content}, Media: media}
	}
	conversation := func(first rocm.Media) []rocm.MediaMessage {
		return []rocm.MediaMessage{
			turn("user", "This is "+rocm.MediaMarker+", this "+rocm.MediaMarker, first, images(7)[0]),
			turn("assistant", "I would write "+rocm.MediaMarker+" for them."),
			turn("user", "And this?", images(3)...),
		}
	}
	few := inference.WithMaxTokens(20)
	one := text(collect(m.ChatMedia(t.Context(), conversation(images(1)[0]), few)))
	n := m.Metrics().PromptTokens
	if one == "" || m.Err() != nil || n < 3*fakellama.ImageTokens {
		t.Fatalf("%q from %d tokens, %v", one, n, m.Err())
	}
	if two := text(collect(m.ChatMedia(t.Context(), conversation(images(2)[0]), few))); two == one || m.Err() != nil {
		t.Errorf("another image gives %q as well, %v", two, m.Err())
	}
	plain := []rocm.MediaMessage{turn("user", "Hi")}
	got := text(collect(m.ChatMedia(t.Context(), plain, few)))
	if want := text(collect(m.Chat(t.Context(), []inference.Message{plain[0].Message}, few))); got != want || m.Err() != nil {
		t.Errorf("without images %q, Chat gives %q, %v", got, want, m.Err())
	}
	for _, none := range [][]rocm.MediaMessage{nil, {}} {
		if got := collect(m.ChatMedia(t.Context(), none)); len(got) > 0 || !errors.Is(m.Err(), rocm.ErrInvalidOption) {
			t.Errorf("a chat without messages gave %d tokens and %v", len(got), m.Err())
		}
	}
}

// Mistakes are reported before anything is sent, or with the server's message.
func TestInvalidMediaAreRejected(t *testing.T) {
	m := loadWithProjector(t, rocm.Settings{})
	textOnly := load(t, fakellama.Script{})
	good := images(1)[0]
	webp := []byte("RIFF\x00\x00\x00\x00WEBPVP8 ")
	one := []rocm.MediaMessage{{Message: inference.Message{Role: "user", Content: "x"}, Media: []rocm.Media{good}}}
	for name, tt := range map[string]struct {
		model *rocm.Model
		req   rocm.Request
		want  error
		says  string
	}{
		"no projector":      {textOnly, rocm.Request{Prompt: rocm.TextPrompt("x", images(1)...)}, rocm.ErrNoProjector, "--mmproj"},
		"no projector chat": {textOnly, rocm.Request{Prompt: rocm.MediaChatPrompt(one)}, rocm.ErrNoProjector, "smollm2"},
		"sound":             {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: []byte("RIFF\x24\x00\x00\x00WAVEfmt ")})}, rocm.ErrNoProjector, "for images"},
		"damaged":           {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: good.Data[:40]})}, rocm.ErrMedia, "Failed to load image or audio file"},
		"damaged in chat":   {m, rocm.Request{Prompt: rocm.MediaChatPrompt([]rocm.MediaMessage{{Message: one[0].Message, Media: []rocm.Media{{Data: []byte("noise")}}}})}, rocm.ErrMedia, "Failed to load"},
		"webp":              {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: webp})}, rocm.ErrMedia, "PNG or JPEG"},
		"webp by name":      {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: []byte("..."), Type: "image/webp"})}, rocm.ErrMedia, "PNG or JPEG"},
		"empty":             {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Type: "image/png"})}, rocm.ErrMedia, "empty"},
		"media type":        {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: good.Data, Type: "png;"})}, rocm.ErrInvalidOption, "images and sounds"},
		"no media type":     {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: good.Data, Type: "image/"})}, rocm.ErrInvalidOption, "such as image/png"},
		"document":          {m, rocm.Request{Prompt: rocm.TextPrompt("x", rocm.Media{Data: good.Data, Type: "application/pdf"})}, rocm.ErrInvalidOption, "images and sounds"},
		"markers":           {m, rocm.Request{Prompt: rocm.TextPrompt(strings.Repeat(rocm.MediaMarker, 2), images(1)...)}, rocm.ErrInvalidOption, "2 markers"},
		"few markers":       {m, rocm.Request{Prompt: rocm.TextPrompt(rocm.MediaMarker, images(1, 2, 3)...)}, rocm.ErrInvalidOption, "3 media"},
		"markers of turn": {m, rocm.Request{Prompt: rocm.MediaChatPrompt(append(slices.Clone(one), rocm.MediaMessage{
			Message: inference.Message{Content: strings.Repeat(rocm.MediaMarker, 3)}, Media: images(1),
		}))}, rocm.ErrInvalidOption, "message 1"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.req.MaxTokens = 4
			s := tt.model.Stream(t.Context(), tt.req)
			got := collect(s.All())
			if err := s.Err(); len(got) > 0 || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%d tokens, %v; want %v that says %q", len(got), err, tt.want, tt.says)
			}
			var api *llamaapi.APIError
			if strings.HasPrefix(tt.says, "Failed") != errors.As(s.Err(), &api) {
				t.Errorf("from the server: %v", s.Err())
			}
		})
	}
	if got := collect(m.GenerateMedia(t.Context(), "x", images(1), inference.WithMaxTokens(2))); len(got) == 0 || m.Err() != nil {
		t.Errorf("after all of them: %d tokens, %v", len(got), m.Err())
	}
}

// The marker is the same for every process, so a request that is sent again after a
// restart means the same there.
func TestImagesAfterARestart(t *testing.T) {
	s := rocm.Settings{}
	s.Restart.MinBackoff = time.Millisecond
	m := loadWithProjector(t, s)
	say := func() string {
		return text(collect(m.GenerateMedia(t.Context(), "What?", images(1), inference.WithMaxTokens(10))))
	}
	want := say()
	kill(t, m)
	if got := say(); got != want || m.Err() != nil {
		t.Errorf("after a death %q, before %q: %v", got, want, m.Err())
	}
	props, err := m.API().Props(t.Context())
	if err != nil || props.MediaMarker == rocm.MediaMarker {
		t.Errorf("the marker %q can be guessed, %v", props.MediaMarker, err)
	}
}

func TestProjectorFile(t *testing.T) {
	b, mmproj := fakebundle.New(t, fakellama.Script{}), projector(t)
	dir := t.TempDir()
	noise := filepath.Join(dir, "noise.gguf")
	if err := os.WriteFile(noise, []byte("noise"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ model, projector, says string }{
		"missing":      {b.Model, filepath.Join(dir, "absent.gguf"), "no such file"},
		"directory":    {b.Model, dir, "name the .gguf file in it"},
		"noise":        {b.Model, noise, "projector"},
		"a model":      {b.Model, b.Model, "not a projector"},
		"as the model": {mmproj, "", "Settings.Projector"},
		"both":         {mmproj, mmproj, "load its model"},
	} {
		t.Run(name, func(t *testing.T) {
			s := rocm.Settings{Bundle: b.Dir}
			s.Projector = tt.projector
			_, err := (&rocm.Backend{}).Load(t.Context(), tt.model, s)
			_, planned := rocm.Plan(tt.model, s)
			for _, err := range []error{err, planned} {
				if !errors.Is(err, rocm.ErrModelFile) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %v, want one that says %q", err, tt.says)
				}
			}
		})
	}
	// The estimate includes the projector, and its path becomes absolute.
	t.Chdir(filepath.Dir(mmproj))
	p, err := rocm.Plan(b.Model, rocm.Settings{Bundle: b.Dir, Options: plan.Options{Projector: filepath.Base(mmproj)}})
	if err != nil {
		t.Fatal(err)
	}
	places := slices.Concat(p.Devices, []plan.Estimate{p.Host})
	if !slices.ContainsFunc(places, func(e plan.Estimate) bool { return e.Projector > 0 }) || !slices.Contains(p.Args, mmproj) {
		t.Errorf("planned %+v, %q", places, p.Args)
	}
}
