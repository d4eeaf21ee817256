// Package ctxtest provides contexts that are cancelled at a known point of the work that uses them,
// so that tests need not wait for it.
package ctxtest

import (
	"context"
	"sync/atomic"
	"testing"
)

// Ends returns a context that is cancelled at the n-th call of its Err method, n from 1 on.
func Ends(t testing.TB, n int64) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	c := &counted{Context: ctx, cancel: cancel}
	c.left.Store(n)
	return c
}

type counted struct {
	context.Context
	cancel context.CancelFunc
	left   atomic.Int64
}

// Err counts the calls.
func (c *counted) Err() error {
	if c.left.Add(-1) == 0 {
		c.cancel()
	}
	return c.Context.Err()
}
