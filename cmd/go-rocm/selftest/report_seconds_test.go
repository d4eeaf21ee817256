package selftest

import (
	"testing"
	"time"
)

func TestMeasuredTimeIsNeverZero(t *testing.T) {
	for d, want := range map[time.Duration]float64{
		0: 0, time.Microsecond: 0.001, 499 * time.Microsecond: 0.001, 1499 * time.Microsecond: 0.001, 1500 * time.Microsecond: 0.002, time.Minute: 60,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%v: got %v, want %v", d, got, want)
		}
	}
}
