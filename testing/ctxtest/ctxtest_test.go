package ctxtest_test

import (
	"context"
	"errors"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/ctxtest"
)

func TestEnds(t *testing.T) {
	ctx := ctxtest.Ends(t, 3)
	for n := range 2 {
		if err := ctx.Err(); err != nil {
			t.Errorf("ended when asked for the %d. time: %v", n+1, err)
		}
	}
	select {
	case <-ctx.Done():
		t.Error("done before it was asked three times")
	default:
	}
	for range 2 {
		if err := ctx.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("asked three times and more: %v", err)
		}
	}
	<-ctx.Done()
}
