// Package poll waits for conditions that nothing announces: the state of another process
// or of the kernel. Where there is an event, a test waits for the event.
package poll

import (
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/goroutines"
)

const (
	// limit is how long a condition may take to become true. It is no limit on speed:
	// only a test that fails takes that long. llama-server answers a question about its
	// slots only between two batches of a prompt, and on a busy machine without a GPU
	// several of them take a minute.
	limit = 5 * time.Minute
	// shortest and longest limit the wait between two checks.
	shortest, longest = 500 * time.Microsecond, 10 * time.Millisecond
)

// Until waits until holds returns true. It fails the test, with the stacks of all
// goroutines, where that takes five minutes. what names the condition, such as "an idle
// slot".
func Until(t testing.TB, what string, holds func() bool) {
	t.Helper()
	until(t, what, limit, holds)
}

func until(t testing.TB, what string, limit time.Duration, holds func() bool) {
	t.Helper()
	if !within(limit, holds) {
		t.Fatalf("waited %v for %s\n%s", limit, what, goroutines.Stacks())
	}
}

// Holds is Until for code without a testing.TB: it reports whether holds returned true
// within five minutes.
func Holds(holds func() bool) bool { return within(limit, holds) }

func within(limit time.Duration, holds func() bool) bool {
	wait := shortest
	for end := time.Now().Add(limit); !holds(); wait = min(2*wait, longest) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(wait)
	}
	return true
}
