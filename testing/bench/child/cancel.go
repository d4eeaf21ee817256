package child

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"forge.lthn.ai/core/go-rocm"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// Cancel measures how soon the slot of an abandoned stream is free.
func Cancel(ctx context.Context, in Input) (page.Section, error) {
	s := page.Section{
		Name: "cancel", Title: "An abandoned stream",
		Text: []string{fmt.Sprintf("From closing a stream after its first chunk to the first response of `/slots`, polled two thousand times per second, in which its slot is free; the response has another %d tokens otherwise. "+
			"llama-server checks for closed connections between two decodes, so a long batch of a prompt is finished first. Model: %s. Medians of %d rounds, with the slowest.", slotTokens/2, in.Real.Name, in.Rounds)},
		Head: []string{"", "ms until the slot is free", "slowest, ms"},
	}
	m, err := in.load(ctx, in.Real, 1, slotTokens, "")
	if err != nil {
		return s, err
	}
	defer func() { _ = m.Close() }()
	r, err := raw(ctx, m, slotTokens/2)
	if err != nil {
		return s, err
	}
	defer r.close()
	clients := []opener{
		{name: "go-rocm, the loop is left", ours: true, open: func(ctx context.Context) (opened, error) { return openOurs(ctx, m) }},
		{name: "go-rocm, the context is cancelled", ours: true, open: func(ctx context.Context) (opened, error) { return openToCancel(ctx, m) }},
	}
	clients = append(clients, peers(r, "")...)
	samples, err := in.interleave(ctx, clients, "ms", func(ctx context.Context, i int) (float64, error) { return abandon(ctx, m, clients[i].open) })
	if err != nil {
		return s, err
	}
	for i, w := range clients {
		slowest := slices.Max(samples[i])
		if w.ours {
			s.Goals = append(s.Goals, page.Goal{What: w.name + ", the slowest:", Got: slowest, Limit: 100, Unit: "ms"})
		}
		s.Rows = append(s.Rows, []string{w.title(), page.Figure(page.Median(samples[i])), page.Figure(slowest)})
	}
	return s, nil
}

// openToCancel is like openOurs, but close cancels the context and reads to the end.
func openToCancel(ctx context.Context, m *rocm.Model) (opened, error) {
	ctx, cancel := context.WithCancel(ctx)
	st := m.Stream(ctx, request(slotTokens/2))
	if _, ok := st.Next(); !ok {
		cancel()
		return opened{}, errors.Join(errors.New("no first token"), st.Err(), st.Close())
	}
	return opened{st, func() error {
		cancel()
		for range st.All() {
		}
		if err := st.Err(); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("a cancelled stream ended with %w", errors.Join(err, errors.New("not its context's error")))
		}
		return nil
	}}, nil
}

// abandon closes a stream and returns the milliseconds until its slot is free.
func abandon(ctx context.Context, m *rocm.Model, open func(context.Context) (opened, error)) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	o, err := open(ctx)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	if err := o.close(); err != nil {
		return 0, err
	}
	for {
		slots, err := m.API().Slots(ctx)
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		if slot := slots[0]; !slot.Processing {
			if slot.Decoded() >= slotTokens/2 {
				return 0, errors.New("the response ended before it was abandoned")
			}
			return ms(took), nil
		}
		time.Sleep(500 * time.Microsecond)
	}
}
