package bundle

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// parallel calls work(ctx, i) for i in 0..n-1 from that many goroutines
// (0: one a CPU). The first error cancels the others and is returned.
func parallel(ctx context.Context, n, workers int, work func(ctx context.Context, i int) error) error {
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
