package supervise

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// A program that allocates without end while it loads, as llama-server does with
// some chat templates, is killed at the limit, and not started again.
func TestLoadingMemoryIsLimited(t *testing.T) {
	spec := fakeSpec(t, roleHungry, fakellama.Script{LoadForever: true})
	spec.LoadingMemory, spec.Restart = 256<<20, RestartOnFailure()
	child, err := Start(t.Context(), spec)
	var exit *ExitError
	if child != nil || !errors.Is(err, ErrMemoryLimit) || !errors.As(err, &exit) {
		t.Fatalf("got %v, want ErrMemoryLimit", err)
	}
	if errors.Is(err, ErrOutOfMemory) {
		t.Errorf("%v counts as a lack of memory, for which less is asked", err)
	}
	if exit.Signal != syscall.SIGKILL || !strings.Contains(exit.Line, "the limit is 256 MiB") || !strings.Contains(exit.Remedy, "chat template") {
		t.Errorf("%v", err)
	}
	entries, err := os.ReadDir(spec.SocketDir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%d entries are left in the socket directory, %v", len(entries), err)
	}
}

// The limit holds for a trial of the arguments, too: it runs the template of a file.
func TestTrialMemoryIsLimited(t *testing.T) {
	spec := fakeSpec(t, roleHungry, fakellama.Script{})
	if err := TryArgs(t.Context(), spec); !errors.Is(err, ErrMemoryLimit) || !strings.Contains(err.Error(), "chat template") {
		t.Errorf("got %v, want ErrMemoryLimit", err)
	}
}

// A program that stays below the limit is not disturbed.
func TestLoadingMemoryAllowsWhatIsNeeded(t *testing.T) {
	spec := fakeSpec(t, roleServer, fakellama.Script{Reply: "yes"})
	spec.LoadingMemory = 1 << 30
	c := mustStart(t, spec)
	if got := anonymousMemory(c.Pid()); got <= 0 || got > spec.LoadingMemory {
		t.Errorf("the fake server uses %d bytes", got)
	}
	if text, err := readAll(t.Context(), c); err != nil || !strings.Contains(text, `"stop":true`) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestParseAnonymous(t *testing.T) {
	for text, want := range map[string]int64{
		"Name:\tRssAnon: 7 kB\nVmRSS:\t  400 kB\nRssAnon:\t     100 kB\nRssFile:\t 300 kB\nVmSwap:\t 28 kB\n": 128 << 10,
		"RssAnon:\n": 0, "RssAnon: x kB\n": 0, "RssAnon: 99999999999999999999 kB\n": 0, "": 0,
	} {
		if got := parseAnonymous([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}
