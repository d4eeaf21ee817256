package benchpage

import (
	"context"
	"math"
	"slices"
	"time"
)

// Variant is one side of a comparison. Each call measures once.
type Variant func(context.Context) (float64, error)

// Interleave measures the variants in turn, round after round, and returns the
// samples of each. Every other round is in reverse order, so that no variant has the
// better position; a load on the machine affects all variants.
func Interleave(ctx context.Context, rounds int, variants ...Variant) ([][]float64, error) {
	samples := make([][]float64, len(variants))
	for round := range rounds {
		for k := range variants {
			if round%2 == 1 {
				k = len(variants) - 1 - k
			}
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := variants[k](ctx)
			if err != nil {
				return nil, err
			}
			samples[k] = append(samples[k], v)
		}
	}
	return samples, nil
}

// Seconds returns a Variant that measures how long f takes.
func Seconds(f func(context.Context) error) Variant {
	return func(ctx context.Context) (float64, error) {
		start := time.Now()
		err := f(ctx)
		return time.Since(start).Seconds(), err
	}
}

// Median returns the median of the samples.
func Median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// ConfidenceInterval returns the interval of the median at a confidence level of at
// least 95 %, whatever the distribution: the two samples at the same rank from both
// ends of which the sign test says that the median is outside with a probability of
// at most 5 %. With fewer than six samples it returns the smallest and the largest.
func ConfidenceInterval(v []float64) (low, high float64) {
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

// Ratios returns the ratio of each round.
func Ratios(ours, peer []float64) []float64 {
	return zip(ours, peer, func(a, b float64) float64 { return a / b })
}

// Differences returns the difference of each round.
func Differences(ours, peer []float64) []float64 {
	return zip(ours, peer, func(a, b float64) float64 { return a - b })
}

func zip(a, b []float64, f func(a, b float64) float64) []float64 {
	out := make([]float64, len(a))
	for i := range a {
		out[i] = f(a[i], b[i])
	}
	return out
}
