package bundle

import (
	"slices"
	"testing"
)

// The windows of all workers fit into the memory, and every frame is decoded once.
func TestPlanWorkersFitsMemory(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for name, c := range map[string]struct {
		windows []int64 // of the frames, in MiB, heaviest frame first
		workers int
		memory  int64 // MiB
		want    []int64
		own     int // frames that only the first worker decodes
	}{
		"one frame":                 {[]int64{8}, 4, 40, []int64{8}, 0},
		"as many as there are CPUs": {[]int64{8, 8, 8, 8, 8}, 2, 40, []int64{8, 8}, 0},
		"as many as memory allows":  {[]int64{8, 8, 8, 8, 8, 8, 8, 8}, 16, 40, []int64{8, 8, 8, 8, 8}, 0},
		"large ones one by one":     {[]int64{32, 8, 32, 8, 8, 8}, 16, 40, []int64{32, 8}, 2},
		"large ones alone":          {[]int64{32, 32, 32}, 16, 40, []int64{32}, 3},
		"one CPU":                   {[]int64{32, 8, 8}, 1, 40, []int64{32}, 1},
		"larger than memory":        {[]int64{128, 8, 8}, 4, 40, []int64{128}, 1},
		"small frames":              {[]int64{0, 0, 0}, 8, 40, []int64{0, 0, 0}, 0},
		"little memory":             {[]int64{8, 8, 8}, 8, 4, []int64{8}, 3},
	} {
		t.Run(name, func(t *testing.T) {
			x := &index{}
			var order []int
			for i, w := range c.windows {
				x.Frames = append(x.Frames, frame{Window: w * mib})
				order = append(order, i)
			}
			e := &extraction{r: &Reader{index: x}}
			workers, common := e.planWorkers(order, c.workers, c.memory*mib)
			var got []int64
			all := slices.Clone(common)
			own := 0
			for _, w := range workers {
				got = append(got, w.window/mib)
				all = append(all, w.own...)
				own += len(w.own)
				for _, i := range append(slices.Clone(w.own), common...) {
					if x.Frames[i].Window > max(w.window, minWindow) {
						t.Errorf("a worker for windows of %d gets one of %d", w.window, x.Frames[i].Window)
					}
				}
			}
			slices.Sort(all)
			if !slices.Equal(got, c.want) || own != c.own || !slices.Equal(all, order) {
				t.Errorf("windows %v, %d own, frames %v; want %v, %d, %v", got, own, all, c.want, c.own, order)
			}
		})
	}
}
