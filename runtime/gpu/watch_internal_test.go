package gpu

import "testing"

// TestReadUntilStable: falling samples are read on, small changes end the wait.
func TestReadUntilStable(t *testing.T) {
	for _, c := range []struct {
		name string
		used []uint64
		want uint64
	}{
		{"falls in steps", []uint64{600, 500, 300, 100, 95, 0}, 95},
		{"flat from the start", []uint64{600, 600, 0}, 600},
		{"rises", []uint64{600, 700, 0}, 700},
		{"ends while falling", []uint64{600, 500, 300}, 300},
	} {
		samples := make(chan Sample, len(c.used))
		for _, u := range c.used {
			samples <- Sample{VRAMUsed: u, VRAMTotal: 1000}
		}
		close(samples)
		got, err := readUntilStable(samples, 10)
		if err != nil || got.VRAMUsed != c.want {
			t.Errorf("%s: stable at %d, %v; want %d", c.name, got.VRAMUsed, err, c.want)
		}
	}
}
