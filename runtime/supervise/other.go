//go:build !linux

package supervise

import (
	"context"
	"log/slog"
	"net/http"
)

// Child is a supervised llama-server; on this platform there is none.
type Child struct{}

// Start gives ErrUnsupportedPlatform: PDEATHSIG, pidfd and SO_PEERCRED, on which
// the package's promises stand, are Linux's.
func Start(_ context.Context, spec Spec) (*Child, error) {
	if _, err := spec.withDefaults(); err != nil {
		return nil, err
	}
	return nil, ErrUnsupportedPlatform
}

// Addr is empty on this platform.
func (*Child) Addr() string { return "" }

// BaseURL is empty on this platform.
func (*Child) BaseURL() string { return "" }

// HTTPClient gives a client whose every request fails.
func (*Child) HTTPClient() *http.Client { return &http.Client{Transport: refuse{}} }

// APIKey is empty on this platform.
func (*Child) APIKey() string { return "" }

// State is Failed on this platform.
func (*Child) State() State { return Failed }

// Progress is 0 on this platform.
func (*Child) Progress() float64 { return 0 }

// Pid is 0 on this platform.
func (*Child) Pid() int { return 0 }

// ActiveRequests is 0 on this platform.
func (*Child) ActiveRequests() int { return 0 }

// Subscribe gives a closed channel on this platform.
func (*Child) Subscribe() (<-chan Event, func()) {
	h := newHub(slog.New(slog.DiscardHandler))
	h.close()
	return h.subscribe()
}

// Done is closed on this platform.
func (*Child) Done() <-chan struct{} {
	ch := make(chan struct{})
	close(ch)
	return ch
}

// Err is ErrUnsupportedPlatform.
func (*Child) Err() error { return ErrUnsupportedPlatform }

// LogTail is empty on this platform.
func (*Child) LogTail() []string { return nil }

// Stop has nothing to stop on this platform.
func (*Child) Stop(context.Context) error { return nil }

// Diagnose is empty but for the state on this platform.
func (*Child) Diagnose() Diagnosis { return Diagnosis{State: Failed} }

// ReapOrphans has nothing to reap on this platform.
func ReapOrphans(string, *slog.Logger) (int, error) { return 0, nil }

// ProbeFlags gives ErrUnsupportedPlatform.
func ProbeFlags(context.Context, Probe) (*Flags, error) { return nil, ErrUnsupportedPlatform }

type refuse struct{}

// RoundTrip implements http.RoundTripper.
func (refuse) RoundTrip(*http.Request) (*http.Response, error) { return nil, ErrUnsupportedPlatform }
