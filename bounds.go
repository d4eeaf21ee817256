package rocm

import (
	"context"
	"fmt"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
)

// llama-server takes any slot by its remainder (get_slot_by_id in
// server-context.cpp) and passes over adapters that it does not have, so that what
// is out of range would act on something else, or on nothing.

// admit compares a request with what the server was started with.
func (m *Model) admit(ctx context.Context, r *Request) error {
	if r.Slot != nil {
		if err := m.hasSlot(*r.Slot); err != nil {
			return err
		}
	}
	return m.hasAdapters(ctx, r.Adapters)
}

func (m *Model) hasSlot(slot int) error {
	if slot < 0 || slot >= m.slots {
		return fmt.Errorf("%w: slot %d; the model has the slots 0 to %d (nil in a Request lets the server choose)", ErrOption, slot, m.slots-1)
	}
	return nil
}

// hasAdapters asks the server once how many adapters it has: their number is that
// of its arguments.
func (m *Model) hasAdapters(ctx context.Context, scales []llamaapi.LoRAScale) error {
	if len(scales) == 0 {
		return nil
	}
	n := m.adapters.Load()
	if n == nil {
		list, err := m.api.LoRAs(ctx)
		if err != nil {
			return err
		}
		n = new(len(list))
		m.adapters.Store(n)
	}
	for _, s := range scales {
		switch {
		case *n == 0:
			return fmt.Errorf("%w: adapter %d; the model was loaded without adapters (Settings.AdapterPath, Settings.Plan)", ErrOption, s.ID)
		case s.ID < 0 || s.ID >= *n:
			return fmt.Errorf("%w: adapter %d; the model has the adapters 0 to %d", ErrOption, s.ID, *n-1)
		}
	}
	return nil
}

// begun fails for a generation that ended before it began: to a prompt of no
// tokens the server gives an empty answer (update_slots in server-context.cpp).
func begun(f llamaapi.Final) error {
	if metricsOf(f, 0).PromptTokens == 0 && f.PredictedTokens == 0 {
		return fmt.Errorf("%w: the prompt has no tokens, and the model puts none before it; give it a text", ErrOption)
	}
	return nil
}
