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
	Err       error // the device went away or its counters cannot be read
}

// VRAMFree is the memory that no process held.
func (s Sample) VRAMFree() uint64 {
	if s.VRAMUsed >= s.VRAMTotal {
		return 0
	}
	return s.VRAMTotal - s.VRAMUsed
}

// Sample reads the memory counters of a device now.
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

// Watch sends a sample of each device at once and then every interval (at
// least a millisecond), until ctx ends; the channel is closed then. A slow
// receiver delays the samples, none is queued up.
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

// Settle waits until the used memory of d has stopped falling: freed memory
// appears in the counters some time after the process that held it has ended.
// It returns the last sample when two in a row, interval apart, differ by less
// than slack bytes, and ctx's error with the last sample when that ends first.
func (f FS) WaitVRAMFree(ctx context.Context, d Device, interval time.Duration, slack uint64) (Sample, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	last, err := settled(f.Watch(ctx, []Device{d}, interval), slack)
	if err == nil {
		err = ctx.Err() // nil unless the samples ended with the context
	}
	return last, err
}

// settled reads samples until one is not lower than the one before by slack.
func settled(samples <-chan Sample, slack uint64) (last Sample, err error) {
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
