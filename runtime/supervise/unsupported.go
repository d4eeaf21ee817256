//go:build !linux

package supervise

import (
	"context"
	"log/slog"
	"net/http"
)

// Child is a supervised llama-server. It does not exist on this platform.
type Child struct{}

// Start returns ErrUnsupportedPlatform: the package depends on PDEATHSIG, pidfd and
// SO_PEERCRED of Linux.
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

// HTTPClient returns a client whose requests all fail.
func (*Child) HTTPClient() *http.Client { return &http.Client{Transport: failingTransport{}} }

// APIKey is empty on this platform.
func (*Child) APIKey() string { return "" }

// String describes the child.
func (*Child) String() string { return "llama-server (unsupported platform)" }

// GoString is String.
func (c *Child) GoString() string { return c.String() }

// LogValue implements slog.LogValuer.
func (c *Child) LogValue() slog.Value { return slog.StringValue(c.String()) }

// State is Failed on this platform.
func (*Child) State() State { return Failed }

// Progress is 0 on this platform.
func (*Child) Progress() float64 { return 0 }

// Pid is 0 on this platform.
func (*Child) Pid() int { return 0 }

// ActiveRequests is 0 on this platform.
func (*Child) ActiveRequests() int { return 0 }

// Subscribe returns a closed channel on this platform.
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

// Diagnose returns nothing but the state on this platform.
func (*Child) Diagnose() Diagnosis { return Diagnosis{State: Failed} }

// ReapOrphans has nothing to reap on this platform.
func ReapOrphans(string, *slog.Logger) (int, error) { return 0, nil }

// ProbeFlags returns ErrUnsupportedPlatform.
func ProbeFlags(context.Context, Probe) (*Flags, error) { return nil, ErrUnsupportedPlatform }

// Output returns ErrUnsupportedPlatform.
func Output(context.Context, Probe, []string, ...string) (stdout, stderr []byte, err error) {
	return nil, nil, ErrUnsupportedPlatform
}

// Lines returns ErrUnsupportedPlatform.
func Lines(context.Context, Probe, []string, func(string), ...string) error {
	return ErrUnsupportedPlatform
}

// TryArgs returns ErrUnsupportedPlatform.
func TryArgs(context.Context, Spec) error { return ErrUnsupportedPlatform }

type failingTransport struct{}

// RoundTrip implements http.RoundTripper.
func (failingTransport) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, ErrUnsupportedPlatform
}
