package rocm

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// Prompt is what a generation continues: a text, tokens or a conversation. The
// zero value is an empty text, which is an [ErrInvalidOption] where the model puts
// no token before it.
type Prompt struct {
	text   string
	tokens []int32
	media  []Media // of a text
	// messages are a conversation where it is not nil.
	messages []MediaMessage
}

// TextPrompt returns a text that is continued as it is; special tokens written in
// the text count as such. The media stand at the places of [MediaMarker] in the
// text, in their order, or before the text where it has no marker.
func TextPrompt(text string, media ...Media) Prompt { return Prompt{text: text, media: media} }

// TokenPrompt returns tokens that are continued as they are.
func TokenPrompt(ids []int32) Prompt { return Prompt{tokens: ids} }

// ChatPrompt returns a conversation for the model's template. A conversation
// without messages is an [ErrInvalidOption].
func ChatPrompt(messages []inference.Message) Prompt {
	p := Prompt{messages: make([]MediaMessage, len(messages))}
	for i, m := range messages {
		p.messages[i].Message = m
	}
	return p
}

// MediaChatPrompt is ChatPrompt for a conversation with images or sound.
func MediaChatPrompt(messages []MediaMessage) Prompt {
	if messages == nil {
		messages = []MediaMessage{}
	}
	return Prompt{messages: messages}
}

// Request is a generation with all its options. Options out of their range are an
// [ErrInvalidOption].
type Request struct {
	// Prompt is what the generation continues.
	Prompt Prompt
	// TemplateVars are variables for the template of a conversation, for example
	// enable_thinking, which llama-server sets to true by default.
	TemplateVars map[string]any

	// GenerateConfig is the contract's part. Start from
	// inference.DefaultGenerateConfig(): the zero value has MaxTokens 0, which
	// sends nothing to the server and yields nothing.
	inference.GenerateConfig
	// Seed, from 0 to 4294967294, makes sampling repeatable; nil: a random seed.
	// llama-server would take the last 32 bits of other numbers, and 4294967295 as
	// a random seed.
	Seed *int64
	// MinP drops tokens whose probability is below this share of the most probable
	// token's; 0: none.
	MinP float32
	// Stop lists texts that end the generation. They are not yielded, and none is
	// empty.
	Stop []string
	// Grammar (GBNF) or JSONSchema constrain the text; at most one is set.
	Grammar    string
	JSONSchema json.RawMessage
	// ReuseCache says whether the part of the prompt that a slot still has is
	// reused. nil: only when Temperature is not 0, because reuse changes the order
	// of floating point sums, and the greedy choice with it.
	ReuseCache *bool
	// Slot pins the request to a slot, from 0 to Model.Slots()-1; nil: the server
	// chooses.
	Slot *int
	// Adapters sets the scales of LoRA adapters for this request, by the ids of
	// Model.Adapters.
	Adapters []llamaapi.LoRAScale
	// Progress is called while the prompt is processed; nil: not called.
	Progress func(llamaapi.Progress)
}

// preparedPrompt is a prompt as llama-server accepts it: the server's markers in
// the text, and the data of all media in the markers' order.
type preparedPrompt struct {
	text   string
	tokens []int32
	media  []Media
	// messages still need the template, where there are any.
	messages []llamaapi.Message
}

// preparePrompt checks the media of a prompt and puts the server's markers into
// the text. A marker in a message without media is plain text.
func (m *Model) preparePrompt(ctx context.Context, p *Prompt) (preparedPrompt, error) {
	out := preparedPrompt{text: p.text, tokens: p.tokens, media: p.media}
	if p.messages == nil {
		var err error
		if len(p.media) > 0 {
			out.text, err = m.insertMarkers(ctx, p.text, p.media)
		}
		return out, err
	}
	for i, msg := range p.messages {
		content := msg.Content
		if len(msg.Media) > 0 {
			var err error
			if content, err = m.insertMarkers(ctx, content, msg.Media); err != nil {
				return out, fmt.Errorf("message %d: %w", i, err)
			}
			out.media = append(out.media, msg.Media...)
		}
		out.messages = append(out.messages, llamaapi.Message{Role: msg.Role, Content: content})
	}
	return out, nil
}

// completion returns the body of /completion. The contract's zero values mean no
// limit, where the server's defaults would mean something else. The server reads
// whole numbers as 32 bits; a limit above them becomes the largest of them, which
// no context holds.
func (r *Request) completion(p *preparedPrompt) *llamaapi.CompletionRequest {
	topP, penalty, minP := r.TopP, r.RepeatPenalty, r.MinP
	if topP == 0 {
		topP = 1
	}
	if penalty == 0 {
		penalty = 1
	}
	cache := r.Temperature != 0
	if r.ReuseCache != nil {
		cache = *r.ReuseCache
	}
	topK, maxTokens, temperature := min(r.TopK, math.MaxInt32), min(r.MaxTokens, math.MaxInt32), r.Temperature
	return &llamaapi.CompletionRequest{
		Prompts:   []llamaapi.Prompt{{Text: p.text, Tokens: p.tokens, Media: mediaData(p.media)}},
		MaxTokens: &maxTokens, Temperature: &temperature, TopK: &topK, TopP: &topP, MinP: &minP,
		RepeatPenalty: &penalty, Seed: r.Seed, Stop: r.Stop, StopIDs: r.StopTokens, Grammar: r.Grammar,
		JSONSchema: r.JSONSchema, CachePrompt: &cache, Slot: r.Slot, LoRA: r.Adapters, Progress: r.Progress != nil,
	}
}

// withScales adds the scales of SetAdapters to a request without its own.
func (m *Model) withScales(r *llamaapi.CompletionRequest) *llamaapi.CompletionRequest {
	if scales := m.scales.Load(); scales != nil && len(r.LoRA) == 0 {
		r.LoRA = *scales
	}
	return r
}

// validate checks each option by itself.
func (r *Request) validate() error {
	bad := func(v float32) bool { return v < 0 || math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) }
	switch {
	case r.Prompt.messages != nil && len(r.Prompt.messages) == 0:
		return invalidOption("a conversation without messages; add at least one")
	case r.MaxTokens < 0:
		return invalidOption("max tokens %d; use 0 or more", r.MaxTokens)
	case bad(r.Temperature):
		return invalidOption("temperature %v; use 0 for greedy sampling, or a positive number", r.Temperature)
	case r.TopK < 0:
		return invalidOption("top-k %d; use 0 for no limit", r.TopK)
	case bad(r.TopP) || r.TopP > 1:
		return invalidOption("top-p %v; use a number from 0 to 1", r.TopP)
	case bad(r.MinP) || r.MinP > 1:
		return invalidOption("min-p %v; use a number from 0 to 1", r.MinP)
	case bad(r.RepeatPenalty):
		return invalidOption("repeat penalty %v; use 1 for none", r.RepeatPenalty)
	case r.Grammar != "" && len(r.JSONSchema) > 0:
		return invalidOption("a grammar and a JSON schema; use one of them")
	case r.Seed != nil && (*r.Seed < 0 || *r.Seed >= math.MaxUint32):
		return invalidOption("seed %d; use 0 to %d, or nil for a random seed", *r.Seed, uint32(math.MaxUint32-1))
	}
	if i := slices.Index(r.Stop, ""); i >= 0 {
		return invalidOption("stop text %d is empty, and every text begins with it; remove it", i)
	}
	return nil
}

// checkTarget compares a request with the slots and adapters of the server.
// llama-server takes any slot number by its remainder (get_slot_by_id in
// server-context.cpp) and ignores adapters that it does not have.
func (m *Model) checkTarget(ctx context.Context, r *Request) error {
	if r.Slot != nil {
		if err := m.checkSlot(*r.Slot); err != nil {
			return err
		}
	}
	return m.checkAdapters(ctx, r.Adapters)
}

func (m *Model) checkSlot(slot int) error {
	if slot < 0 || slot >= m.slots {
		return invalidOption("slot %d; the model has the slots 0 to %d (with nil in a Request the server chooses)", slot, m.slots-1)
	}
	return nil
}

// checkAdapters asks the server once how many adapters it has: its arguments
// determine their number.
func (m *Model) checkAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error {
	if len(scales) == 0 {
		return nil
	}
	n := m.adapters.Load()
	if n == nil {
		list, err := m.api.LoRAs(ctx)
		if err != nil {
			return err
		}
		count := len(list)
		n = &count
		m.adapters.Store(n)
	}
	for _, s := range scales {
		switch {
		case *n == 0:
			return invalidOption("adapter %d; the model was loaded without adapters (Settings.Adapters)", s.ID)
		case s.ID < 0 || s.ID >= *n:
			return invalidOption("adapter %d; the model has the adapters 0 to %d", s.ID, *n-1)
		}
	}
	return nil
}

// checkPromptTokens returns an error for a prompt without tokens, to which the
// server sends an empty answer (update_slots in server-context.cpp).
func checkPromptTokens(f llamaapi.Final) error {
	if metricsOf(f, 0).PromptTokens == 0 && f.PredictedTokens == 0 {
		return invalidOption("the prompt has no tokens, and the model puts none before it; use a longer text")
	}
	return nil
}
