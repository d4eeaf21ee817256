package cli

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
)

func TestPoolErrorsBecomeTheGateways(t *testing.T) {
	secret := errors.New("/home/alice/secret.gguf")
	small := fmt.Errorf("%w: too large", plan.ErrDoesNotFit)
	for _, tc := range []struct{ err, want error }{
		{nil, nil},
		{fmt.Errorf("%w: m", rocm.ErrUnknownModel), gateway.ErrUnknownModel},
		{rocm.ErrNoModelName, gateway.ErrNoModelName},
		{fmt.Errorf("%w: m", rocm.ErrNotLoaded), gateway.ErrNotLoaded},
		{fmt.Errorf("model m: %w", rocm.ErrUnloaded), gateway.ErrUnloaded},
		{fmt.Errorf("model m: %w", rocm.ErrQueueFull), &gateway.QueueFullError{Model: "m", RetryAfter: retryQueue}},
		{fmt.Errorf("model m: %w", &scheduler.NoRoomError{Reasons: []string{"a", "b"}}), &gateway.NoRoomError{Model: "m", Reasons: []string{"a", "b"}}},
		{&scheduler.NoRoomError{Reasons: []string{"a"}, Temporary: true}, &gateway.NoRoomError{Model: "m", Reasons: []string{"a"}, RetryAfter: retryNoRoom}},
		{&scheduler.NoRoomError{Cause: small}, &gateway.NoRoomError{Model: "m", Reasons: []string{"model does not fit: too large"}}},
		{fmt.Errorf("model m: %w", &scheduler.FailedError{Cause: secret}), &gateway.LoadError{Model: "m", Err: secret}},
		{secret, secret},
	} {
		if got := gatewayError("m", tc.err); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%v becomes %#v, want %#v", tc.err, got, tc.want)
		}
	}
	soon := &scheduler.FailedError{Cause: secret, RetryAt: time.Now().Add(time.Hour)}
	var load *gateway.LoadError
	if err := gatewayError("m", soon); !errors.As(err, &load) || load.RetryAfter <= 59*time.Minute || load.RetryAfter > time.Hour {
		t.Errorf("%#v", err)
	}
}
