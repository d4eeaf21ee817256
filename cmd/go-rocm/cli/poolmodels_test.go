package cli

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/gateway"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

func TestPoolErrorsBecomeTheGateways(t *testing.T) {
	secret := errors.New("/home/alice/secret.gguf")
	small := fmt.Errorf("%w: too large", plan.ErrDoesNotFit)
	for _, tc := range []struct{ err, want error }{
		{nil, nil},
		{fmt.Errorf("%w: m", rocm.ErrUnknownModel), gateway.ErrUnknownModel},
		{rocm.ErrNoModelName, gateway.ErrNoModelName},
		{fmt.Errorf("%w: m", rocm.ErrNotLoaded), gateway.ErrNotLoaded},
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

func TestPoolStatusBecomesTheGateways(t *testing.T) {
	for _, tc := range []struct {
		status rocm.ModelStatus
		want   []gateway.Capability
	}{
		{rocm.ModelStatus{}, []gateway.Capability{gateway.CanComplete}},
		{rocm.ModelStatus{ChatTemplate: true, Vision: true, Audio: true}, []gateway.Capability{gateway.CanComplete, gateway.CanChat, gateway.CanSee, gateway.CanHear}},
		{rocm.ModelStatus{ChatTemplate: true, Embeddings: true}, []gateway.Capability{gateway.CanEmbed}},
		{rocm.ModelStatus{Reranking: true}, []gateway.Capability{gateway.CanRerank}},
	} {
		if got := gatewayStatus(tc.status).Capabilities; !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.status, got, tc.want)
		}
	}
	exit := &supervise.ExitError{Kind: supervise.ErrOutOfMemory, Log: []string{"/home/alice"}}
	if got := gatewayStatus(rocm.ModelStatus{Cause: exit}); got.Cause != "out of memory" || !errors.Is(got.Err, exit) {
		t.Errorf("%q, %v", got.Cause, got.Err)
	}
	if got := gatewayStatus(rocm.ModelStatus{Cause: errors.New("/home/alice")}).Cause; got != "the log of the service has the cause" {
		t.Errorf("%q", got)
	}
	for stage, want := range map[rocm.LoadProgress]float64{{Stage: rocm.StageUnpack, Done: 0.9}: 0, {Stage: rocm.StageLoad, Done: 0.5}: 0.5} {
		if got := gatewayStatus(rocm.ModelStatus{Progress: stage}).Progress; got != want {
			t.Errorf("%+v: %v", stage, got)
		}
	}
}
