package poll

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// failing records the failure of a test instead of ending it.
type failing struct {
	testing.TB

	said string
}

func (f *failing) Helper() {}

// Fatalf panics, as the real one does not return either.
func (f *failing) Fatalf(format string, args ...any) {
	f.said = format
	for _, a := range args {
		if s, ok := a.(string); ok {
			f.said += s
		}
	}
	panic(f)
}

func TestUntilReturnsWhenTheConditionHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, asked := time.Now(), 0
		Until(t, "the tenth question", func() bool { asked++; return asked == 10 })
		if took := time.Since(start); asked != 10 || took > 10*longest {
			t.Errorf("%d questions in %v", asked, took)
		}
		start = time.Now()
		Until(t, "nothing", func() bool { return true })
		if time.Since(start) != 0 {
			t.Error("it waited for a condition that was true")
		}
	})
}

func TestUntilFailsAfterTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, start := &failing{TB: t}, time.Now()
		func() {
			defer func() { _ = recover() }()
			Until(f, "rain", func() bool { return false })
		}()
		if took := time.Since(start); took < limit || took > limit+longest {
			t.Errorf("failed after %v", took)
		}
		if !strings.Contains(f.said, "rain") || !strings.Contains(f.said, "goroutine ") {
			t.Errorf("said %.200q; want the condition and the stacks", f.said)
		}
	})
}

func TestHoldsReportsWhetherTheConditionHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		if !Holds(func() bool { asked++; return asked == 3 }) || asked != 3 {
			t.Errorf("asked %d times", asked)
		}
		if start := time.Now(); Holds(func() bool { return false }) || time.Since(start) < limit {
			t.Errorf("gave up after %v", time.Since(start))
		}
	})
}
