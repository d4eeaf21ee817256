package benchpage

import (
	"context"
	"math"
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

// Sure is the range that holds the median of what the samples are drawn from
// with a probability of at least 95 %, whatever the distribution: the two samples
// at the same distance from the ends so that, by the binomial distribution, it
// lies outside in at most one case of twenty. Fewer than six samples cannot say,
// and give their ends.
func Sure(v []float64) (low, high float64) {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	skip, outside := 0, math.Pow(0.5, float64(n)) // of k samples or fewer below the median
	for k, p := 0, outside; k < n/2; k++ {
		p *= float64(n-k) / float64(k+1)
		if outside+p > 0.025 {
			break
		}
		outside += p
		skip = k + 1
	}
	return v[skip], v[n-1-skip]
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
