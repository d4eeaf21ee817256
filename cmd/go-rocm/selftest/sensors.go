package selftest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// CardSensors are the highest readings of a card's sensors during the test; 0 is a
// sensor that the card does not have.
type CardSensors struct {
	Name            string   `json:"name"`
	PCI             string   `json:"pci"`
	Samples         int      `json:"samples"`
	EdgeCelsius     float64  `json:"edge_celsius"`
	JunctionCelsius float64  `json:"junction_celsius"`
	MemoryCelsius   float64  `json:"memory_celsius"`
	PowerWatts      float64  `json:"power_watts"`
	PowerCapWatts   float64  `json:"power_cap_watts"`
	ShaderMHz       float64  `json:"shader_mhz"`
	Throttled       []string `json:"throttled,omitempty"` // what limited the clocks
}

// sampler reads the sensors each second.
type sampler struct {
	fs      gpu.FS
	cards   []CardSensors
	stopped chan struct{}
	running sync.WaitGroup
}

func startSampler(fs gpu.FS, devices []gpu.Device) *sampler {
	s := &sampler{fs: fs, stopped: make(chan struct{})}
	for _, d := range devices {
		if d.PCI != "" {
			s.cards = append(s.cards, CardSensors{Name: d.Name, PCI: d.PCI})
		}
	}
	s.running.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			s.sample()
			select {
			case <-s.stopped:
				return
			case <-tick.C:
			}
		}
	})
	return s
}

func (s *sampler) sample() {
	devices, err := s.fs.Cards()
	if err != nil && len(devices) == 0 {
		return
	}
	for _, d := range devices {
		i := slices.IndexFunc(s.cards, func(c CardSensors) bool { return c.PCI == d.PCI })
		if i < 0 || d.Sensors.Suspended {
			continue
		}
		c, now := &s.cards[i], d.Sensors
		c.Samples++
		for _, v := range []struct {
			highest *float64
			now     float64
		}{
			{&c.EdgeCelsius, now.EdgeCelsius},
			{&c.JunctionCelsius, now.JunctionCelsius},
			{&c.MemoryCelsius, now.MemoryCelsius},
			{&c.PowerWatts, now.PowerWatts},
			{&c.PowerCapWatts, now.PowerCapWatts},
			{&c.ShaderMHz, now.ShaderMHz},
		} {
			*v.highest = max(*v.highest, v.now)
		}
		for _, kind := range now.Throttled {
			if !slices.Contains(c.Throttled, kind) {
				c.Throttled = append(c.Throttled, kind)
			}
		}
	}
}

// result ends the sampling and returns its result.
func (s *sampler) result() Result {
	close(s.stopped)
	s.running.Wait()
	var parts []string
	for _, c := range s.cards {
		if text := c.describe(); text != "" {
			parts = append(parts, text)
		}
	}
	if len(parts) == 0 {
		return notPossible("a card with the driver amdgpu has sensors; see /sys/class/drm/card*/device/hwmon", "no card reports power or temperature")
	}
	res := passed("%s", strings.Join(parts, "; "))
	res.Sensors = s.cards
	return res
}

func (c CardSensors) describe() string {
	var values []string
	for _, v := range []struct {
		value float64
		unit  string
	}{{max(c.EdgeCelsius, c.JunctionCelsius), "°C"}, {c.PowerWatts, "W"}} {
		if v.value > 0 {
			values = append(values, fmt.Sprintf("%.0f %s", v.value, v.unit))
		}
	}
	if len(values) == 0 {
		return ""
	}
	text := c.Name + ": at most " + strings.Join(values, ", ")
	if len(c.Throttled) > 0 {
		text += ", clocks limited by " + strings.Join(c.Throttled, ", ")
	}
	return text
}
