package bench

import (
	"context"
	"runtime"
	"testing"
)

// Measure reads streams of n tokens and reports time, allocations and bytes per token.
func Measure(b *testing.B, s *Server, c Case, n int) {
	b.Helper()
	ctx := context.Background()
	read := c.Open(s)
	total := 0
	yield := func(text string) { total += len(text) }
	if err := read(ctx, yield); err != nil { // connects
		b.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.ResetTimer()
	for range b.N {
		if err := read(ctx, yield); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	all := float64(b.N) * float64(n)
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/all, "ns/token")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/all, "allocs/token")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/all, "B/token")
	b.ReportMetric(0, "ns/op")
	if c.Text && total == 0 {
		b.Fatal("no text was read")
	}
}
