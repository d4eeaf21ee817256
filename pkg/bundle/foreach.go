package bundle

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// forEach calls work(ctx, i) for each i in 0..n-1, workers at a time (0: one for
// each CPU). The first error cancels the others and is returned.
//
// errgroup does the same, but golang.org/x/sync would become a requirement of
// every program that imports this package.
func forEach(ctx context.Context, n, workers int, work func(ctx context.Context, i int) error) error {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var (
		wg         sync.WaitGroup
		next, done atomic.Int64
	)
	for range min(workers, n) {
		wg.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := work(ctx, i); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if done.Load() == int64(n) {
		return nil
	}
	return context.Cause(ctx)
}

// heaviestFirst returns the indices 0..n-1, heaviest first, so that all workers
// finish at about the same time.
func heaviestFirst(n int, weight func(int) int64) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch wa, wb := weight(a), weight(b); {
		case wa > wb:
			return -1
		case wa < wb:
			return 1
		}
		return 0
	})
	return order
}
