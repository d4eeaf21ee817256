//go:build linux

package supervise

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// stateOf returns the state of a process as proc(5) has it: T for a stopped one.
func stateOf(t *testing.T, pid int) byte {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(raw, []byte(") "))
	return rest[0]
}

func TestPauseStopsTheProcessForATime(t *testing.T) {
	c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	defer stopClean(t, c)
	paused := make(chan struct{})
	go func() {
		defer close(paused)
		c.Pause(500 * time.Millisecond)
	}()
	poll.Until(t, "a stopped process", func() bool { return stateOf(t, c.Pid()) == 'T' })
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.BaseURL()+"/health", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.HTTPClient().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	<-paused
	if state := stateOf(t, c.Pid()); res.StatusCode != http.StatusOK || state == 'T' {
		t.Errorf("status %d, state %c", res.StatusCode, state)
	}
}

// A stop does not wait for the end of a pause.
func TestStopEndsAPause(t *testing.T) {
	c := mustStart(t, fakeSpec(t, roleServer, fakellama.Script{}))
	paused := make(chan struct{})
	go func() {
		defer close(paused)
		c.Pause(time.Hour)
	}()
	pid := c.Pid()
	poll.Until(t, "a stopped process", func() bool { return stateOf(t, pid) == 'T' })
	stopClean(t, c)
	<-paused
	c.Pause(time.Hour) // there is no process to pause
}
