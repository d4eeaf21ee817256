package llamaapi

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Health returns nil if the server responds and its model is loaded, and
// ErrLoading while the model is loading. The endpoint does not check whether the
// server can decode; Slots shows whether it makes progress.
func (c *Client) Health(ctx context.Context) error {
	var out struct {
		Status string `json:"status"`
	}
	if err := c.call(ctx, http.MethodGet, "/health", nil, &out); err != nil {
		return err
	}
	if out.Status != "ok" {
		return fmt.Errorf("health: %w: status %q", ErrMalformed, out.Status)
	}
	return nil
}

// Modalities lists the kinds of media that a server accepts; none without a
// projector.
type Modalities struct {
	Vision bool `json:"vision"`
	Audio  bool `json:"audio"`
	Video  bool `json:"video"`
}

// Props holds the server's properties.
type Props struct {
	// TotalSlots is the number of completions that run in parallel.
	TotalSlots int `json:"total_slots"`
	// Defaults are the settings of a request that sets none.
	Defaults struct {
		// ContextLen is the context of one slot, in tokens.
		ContextLen int             `json:"n_ctx"`
		Params     json.RawMessage `json:"params"`
	} `json:"default_generation_settings"`
	ModelAlias string `json:"model_alias"`
	ModelPath  string `json:"model_path"`
	ModelFType string `json:"model_ftype"`
	// Modalities lists the media that the projector accepts.
	Modalities Modalities `json:"modalities"`
	// MediaMarker marks the position of an image or audio file in a prompt.
	MediaMarker  string `json:"media_marker"`
	ChatTemplate string `json:"chat_template"`
	BOSToken     string `json:"bos_token"`
	EOSToken     string `json:"eos_token"`
	BuildInfo    string `json:"build_info"`
	// Sleeping means that the server unloaded its model because it was idle.
	Sleeping bool `json:"is_sleeping"`
}

// Props returns the server's properties. It does not wake a sleeping server.
func (c *Client) Props(ctx context.Context) (*Props, error) {
	var out Props
	if err := c.call(ctx, http.MethodGet, "/props", nil, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// Slot is the state of one slot.
type Slot struct {
	ID         int  `json:"id"`
	ContextLen int  `json:"n_ctx"`
	Processing bool `json:"is_processing"`
	// Task is the id of the last task. The other counts belong to this task; all are
	// 0 before the first.
	Task int `json:"id_task"`
	// PromptTokens is the number of tokens in the slot, PromptProcessed and
	// PromptCached the numbers of prompt tokens that were computed and cached.
	PromptTokens    int `json:"n_prompt_tokens"`
	PromptProcessed int `json:"n_prompt_tokens_processed"`
	PromptCached    int `json:"n_prompt_tokens_cache"`
	// NextToken has one entry: the state of the sampler.
	NextToken []struct {
		HasNext bool `json:"has_next_token"`
		Remain  int  `json:"n_remain"`
		Decoded int  `json:"n_decoded"`
	} `json:"next_token"`
}

// Decoded returns the number of tokens that the slot's last task has sampled.
func (s Slot) Decoded() int {
	if len(s.NextToken) == 0 {
		return 0
	}
	return s.NextToken[0].Decoded
}

// Slots returns the state of all slots. A server that hangs in a decode returns
// the same state every time; a server whose main thread hangs elsewhere does
// not respond, so use a context with a deadline.
func (c *Client) Slots(ctx context.Context) ([]Slot, error) {
	var out []Slot
	err := c.call(ctx, http.MethodGet, "/slots", nil, &out)
	return out, err
}

// SlotFile is the result of saving or restoring a slot.
type SlotFile struct {
	Slot int
	Name string
	// Tokens and Bytes are the amounts written or read, Duration the time it took.
	Tokens   int
	Bytes    int64
	Duration time.Duration
}

// SaveSlot writes the state of a slot to the named file in the server's
// --slot-save-path.
func (c *Client) SaveSlot(ctx context.Context, slot int, name string) (SlotFile, error) {
	return c.slotFile(ctx, slot, "save", name)
}

// RestoreSlot reads the state of a slot from a file that SaveSlot wrote.
func (c *Client) RestoreSlot(ctx context.Context, slot int, name string) (SlotFile, error) {
	return c.slotFile(ctx, slot, "restore", name)
}

func (c *Client) slotFile(ctx context.Context, slot int, action, name string) (SlotFile, error) {
	var out struct {
		Slot     int    `json:"id_slot"`
		Name     string `json:"filename"`
		Saved    int    `json:"n_saved"`
		Restored int    `json:"n_restored"`
		Written  int64  `json:"n_written"`
		Read     int64  `json:"n_read"`
		Timings  struct {
			Save    float64 `json:"save_ms"`
			Restore float64 `json:"restore_ms"`
		} `json:"timings"`
	}
	err := c.call(ctx, http.MethodPost, slotPath(slot, action), map[string]string{"filename": name}, &out)
	if err != nil {
		return SlotFile{}, fmt.Errorf("%s slot %d: %w", action, slot, err)
	}
	return SlotFile{
		Slot: out.Slot, Name: out.Name, Tokens: out.Saved + out.Restored, Bytes: out.Written + out.Read,
		Duration: milliseconds(out.Timings.Save + out.Timings.Restore),
	}, nil
}

// EraseSlot clears a slot and returns the number of tokens that were in it.
func (c *Client) EraseSlot(ctx context.Context, slot int) (int, error) {
	var out struct {
		Erased int `json:"n_erased"`
	}
	err := c.call(ctx, http.MethodPost, slotPath(slot, "erase"), struct{}{}, &out)
	if err != nil {
		return 0, fmt.Errorf("erase slot %d: %w", slot, err)
	}
	return out.Erased, nil
}

func slotPath(slot int, action string) string {
	return "/slots/" + strconv.Itoa(slot) + "?action=" + url.QueryEscape(action)
}

// LoRA is an adapter that the server has loaded.
type LoRA struct {
	ID    int     `json:"id"`
	Path  string  `json:"path"`
	Scale float32 `json:"scale"`
}

// LoRAScale is the scale to set for one adapter.
type LoRAScale struct {
	ID    int     `json:"id"`
	Scale float32 `json:"scale"`
}

// LoRAs returns the adapters and their scales.
func (c *Client) LoRAs(ctx context.Context) ([]LoRA, error) {
	var out []LoRA
	err := c.call(ctx, http.MethodGet, "/lora-adapters", nil, &out)
	return out, err
}

// SetLoRAs sets the scales for later requests. Adapters that are not listed get
// scale 0.
func (c *Client) SetLoRAs(ctx context.Context, scales []LoRAScale) error {
	if scales == nil {
		scales = []LoRAScale{}
	}
	var out struct {
		Success bool `json:"success"`
	}
	if err := c.call(ctx, http.MethodPost, "/lora-adapters", scales, &out); err != nil {
		return err
	}
	if !out.Success {
		return fmt.Errorf("lora adapters: %w: the response does not confirm success", ErrMalformed)
	}
	return nil
}
