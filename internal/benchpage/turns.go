package benchpage

import (
	"context"
	"slices"
	"time"
)

// Way is one of the ways of doing something that are compared; it measures
// itself once.
type Way func(context.Context) (float64, error)

// Turns lets the ways measure themselves in turn, round after round, and gives
// the samples of each. Every other round goes backwards, so that no way has the
// better place; a machine that is busy for a while is busy for all.
func Turns(ctx context.Context, rounds int, ways ...Way) ([][]float64, error) {
	samples := make([][]float64, len(ways))
	for round := range rounds {
		for k := range ways {
			if round%2 == 1 {
				k = len(ways) - 1 - k
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := ways[k](ctx)
			if err != nil {
				return nil, err
			}
			samples[k] = append(samples[k], v)
		}
	}
	return samples, nil
}

// Seconds makes a Way of something that is timed.
func Seconds(f func(context.Context) error) Way {
	return func(ctx context.Context) (float64, error) {
		start := time.Now()
		err := f(ctx)
		return time.Since(start).Seconds(), err
	}
}

// Median is the middle of the samples.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Middle is where the middle half of the samples lies: how far one round is from
// the next.
func Middle(v []float64) (low, high float64) {
	v = slices.Sorted(slices.Values(v))
	half := (len(v) + 1) / 2
	return Median(v[:half]), Median(v[len(v)-half:])
}

// Ratios are those of each round.
func Ratios(ours, peer []float64) []float64 {
	return each(ours, peer, func(a, b float64) float64 { return a / b })
}

// Differences are those of each round.
func Differences(ours, peer []float64) []float64 {
	return each(ours, peer, func(a, b float64) float64 { return a - b })
}

func each(a, b []float64, f func(a, b float64) float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = f(a[i], b[i])
	}
	return out
}
