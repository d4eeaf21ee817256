package extract

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestSettle: the wait for the tick of a file's change to end is short, though
// the file's time may lie hours ahead: the clock was set back, or a server's is
// another.
func TestSettle(t *testing.T) {
	because := errors.New("the user went home")
	for name, tt := range map[string]struct {
		ahead  time.Duration // of the file's time
		ticks  bool          // the clock moves
		cancel bool
		least  time.Duration
		most   time.Duration
		want   error
	}{
		"over":             {ahead: -time.Nanosecond, ticks: true},
		"the same tick":    {ticks: true, least: tick / 4, most: tick},
		"the next but one": {ahead: tick, ticks: true, least: tick, most: 3 * tick},
		"two hours ahead":  {ahead: 2 * time.Hour, ticks: true, least: tick, most: 10 * tick},
		"a clock at rest":  {least: tick, most: 10 * tick},
		"given up":         {ahead: 2 * time.Hour, cancel: true, want: because},
		"over, given up":   {ahead: -time.Nanosecond, cancel: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				if tt.cancel {
					cancel(because)
				}
				begin := time.Now()
				clock := func() int64 {
					if !tt.ticks {
						return begin.UnixNano()
					}
					return time.Now().Truncate(tick / 2).UnixNano()
				}
				err := settle(ctx, clock()+int64(tt.ahead), clock)
				if took := time.Since(begin); !errors.Is(err, tt.want) || took < tt.least || took > tt.most {
					t.Errorf("%v after %s, want %v after %s to %s", err, took, tt.want, tt.least, tt.most)
				}
			})
		})
	}
}
