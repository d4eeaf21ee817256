package gpu

import (
	"context"
	"time"
)

// Sample is the memory of a device at one moment, in bytes.
type Sample struct {
	Time      time.Time
	PCI       string
	VRAMTotal uint64
	VRAMUsed  uint64
	GTTUsed   uint64
	Err       error // the device is gone or its counters cannot be read
}

// VRAMFree returns the memory that no process used.
func (s Sample) VRAMFree() uint64 {
	if s.VRAMUsed >= s.VRAMTotal {
		return 0
	}
	return s.VRAMTotal - s.VRAMUsed
}

// Sample reads the memory counters of a device.
func (f FS) Sample(d Device) Sample {
	s := Sample{Time: time.Now(), PCI: d.PCI}
	dir := f.drmDir(&d)
	if s.VRAMTotal, s.Err = f.number(dir, "mem_info_vram_total"); s.Err != nil {
		return s
	}
	if s.VRAMUsed, s.Err = f.number(dir, "mem_info_vram_used"); s.Err != nil {
		return s
	}
	s.GTTUsed = f.optional(dir, "mem_info_gtt_used")
	return s
}

// Watch sends a sample of each device at once and then every interval (at least a
// millisecond). When ctx ends, it closes the channel. A slow receiver delays the
// samples; none is queued.
func (f FS) Watch(ctx context.Context, devices []Device, interval time.Duration) <-chan Sample {
	out := make(chan Sample)
	go func() {
		defer close(out)
		tick := time.NewTicker(max(interval, time.Millisecond))
		defer tick.Stop()
		for {
			for _, d := range devices {
				select {
				case out <- f.Sample(d):
				case <-ctx.Done():
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// WaitVRAMFree waits until the used memory of d stops falling: the driver updates the
// counters some time after the process that used the memory has exited. It returns
// the last sample once two in a row, interval apart, differ by less than slack bytes.
// If ctx ends first, it returns ctx's error with the last sample.
func (f FS) WaitVRAMFree(ctx context.Context, d Device, interval time.Duration, slack uint64) (Sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	last, err := readUntilStable(f.Watch(ctx, []Device{d}, interval), slack)
	if err == nil {
		err = ctx.Err() // nil unless the samples ended with the context
	}
	return last, err
}

// readUntilStable reads samples until one is less than slack bytes below the one
// before.
func readUntilStable(samples <-chan Sample, slack uint64) (last Sample, err error) {
	first := true
	for s := range samples {
		if s.Err != nil {
			return s, s.Err
		}
		if !first && s.VRAMUsed+slack > last.VRAMUsed {
			return s, nil
		}
		last, first = s, false
	}
	return last, nil
}
