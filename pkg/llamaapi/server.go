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

// Health is nil when the server answers and its model is loaded. While it loads
// the error is ErrLoading. A healthy server may still be unable to decode: the
// endpoint does not look (see Slots for a sign of life).
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

// Modalities are the kinds of media that a server reads; without a projector none.
type Modalities struct {
	Vision bool `json:"vision"`
	Audio  bool `json:"audio"`
	Video  bool `json:"video"`
}

// Props are the server's properties.
type Props struct {
	// TotalSlots is how many completions run side by side.
	TotalSlots int `json:"total_slots"`
	// Defaults are the settings that a request starts from.
	Defaults struct {
		// ContextLen is the context of one slot, in tokens.
		ContextLen int             `json:"n_ctx"`
		Params     json.RawMessage `json:"params"`
	} `json:"default_generation_settings"`
	ModelAlias string `json:"model_alias"`
	ModelPath  string `json:"model_path"`
	ModelFType string `json:"model_ftype"`
	// Modalities tell which media the projector takes.
	Modalities Modalities `json:"modalities"`
	// MediaMarker stands in a prompt where a medium goes.
	MediaMarker  string `json:"media_marker"`
	ChatTemplate string `json:"chat_template"`
	BOSToken     string `json:"bos_token"`
	EOSToken     string `json:"eos_token"`
	BuildInfo    string `json:"build_info"`
	// Sleeping means that the model was unloaded for want of use.
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
	// Task is the number of the last task, the other counts are of it; all are 0
	// before the first.
	Task int `json:"id_task"`
	// PromptTokens is what the slot holds, PromptProcessed and PromptCached how
	// much of the prompt was computed and found.
	PromptTokens    int `json:"n_prompt_tokens"`
	PromptProcessed int `json:"n_prompt_tokens_processed"`
	PromptCached    int `json:"n_prompt_tokens_cache"`
	// NextToken has one entry: the state of sampling.
	NextToken []struct {
		HasNext bool `json:"has_next_token"`
		Remain  int  `json:"n_remain"`
		Decoded int  `json:"n_decoded"`
	} `json:"next_token"`
}

// Decoded is how many tokens the slot's last task has sampled.
func (s Slot) Decoded() int {
	if len(s.NextToken) == 0 {
		return 0
	}
	return s.NextToken[0].Decoded
}

// Slots returns the state of all slots. A server that is wedged tells the same
// again and again while it is in a decode, and gives no answer where its main
// thread hangs elsewhere: use a context with a deadline.
func (c *Client) Slots(ctx context.Context) ([]Slot, error) {
	var out []Slot
	err := c.call(ctx, http.MethodGet, "/slots", nil, &out)
	return out, err
}

// SlotFile is what saving or restoring a slot did.
type SlotFile struct {
	Slot int
	Name string
	// Tokens and Bytes were written or read.
	Tokens int
	Bytes  int64
	Took   time.Duration
}

// SaveSlot writes the state of a slot to a file of that name in the server's
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
		Took: milliseconds(out.Timings.Save + out.Timings.Restore),
	}, nil
}

// EraseSlot empties a slot and returns how many tokens it held.
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

// LoRA is an adapter that the server was started with.
type LoRA struct {
	ID    int     `json:"id"`
	Path  string  `json:"path"`
	Scale float32 `json:"scale"`
}

// LoRAScale sets the strength of one adapter.
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

// SetLoRAs sets the scales for the requests to come; adapters that are not
// named are switched off.
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
		return fmt.Errorf("lora adapters: %w: no success told", ErrMalformed)
	}
	return nil
}
