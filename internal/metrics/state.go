package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"forge.lthn.ai/core/go-rocm/internal/activity"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// state collects what the models, the cards and the running requests are at the
// moment of the question.
type state struct {
	o Options

	model, process, running, waiting        *prometheus.Desc
	memory, size, temperature, power, limit *prometheus.Desc
	clock, busy, throttled                  *prometheus.Desc
	modelStates, processStates              []string
}

func newState(o Options) *state {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	card := func(name, help string, labels ...string) *prometheus.Desc {
		return desc(name, help, append([]string{"card", "name"}, labels...)...)
	}
	s := &state{
		o:           o,
		model:       desc("model_state", "1 for the state that a model is in, 0 for the others.", "model", "state"),
		process:     desc("model_process_state", "1 for the state that a model's llama-server is in, 0 for the others.", "model", "state"),
		running:     desc("requests_running", "Requests that llama-server computes.", "model"),
		waiting:     desc("requests_waiting", "Requests that wait for their model or for a slot.", "model"),
		memory:      card("card_memory_bytes", "Memory of a card: used by the service's models (ours), by other programs (others), or free.", "owner"),
		size:        card("card_memory_size_bytes", "All memory of a card."),
		temperature: card("card_temperature_celsius", "Temperature of a card.", "sensor"),
		power:       card("card_power_watts", "Power that a card takes."),
		limit:       card("card_power_limit_watts", "Power that a card may take."),
		clock:       card("card_clock_hertz", "Clock of a card's shaders or memory.", "clock"),
		busy:        card("card_busy_ratio", "Share of the time in which a card computes, from 0 to 1."),
		throttled:   card("card_throttled", "1 where a limit keeps a card's clocks down, by the kind of the limit.", "limit"),
		modelStates: []string{"unloaded", "loading", "loaded", "unloading", "failed"},
	}
	for p := supervise.Stopped; p <= supervise.Failed; p++ {
		s.processStates = append(s.processStates, p.String())
	}
	return s
}

// Describe implements prometheus.Collector.
func (s *state) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		s.model, s.process, s.running, s.waiting, s.memory, s.size, s.temperature, s.power, s.limit, s.clock, s.busy, s.throttled,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	running, waiting := map[string]int{}, map[string]int{}
	if s.o.Requests != nil {
		for _, r := range s.o.Requests() {
			if r.Stage == activity.Waiting {
				waiting[r.Model]++
			} else {
				running[r.Model]++
			}
		}
	}
	if s.o.Models != nil {
		for _, m := range s.o.Models() {
			for _, name := range s.modelStates {
				gauge(s.model, truth(name == m.State), m.Name, name)
			}
			for _, name := range s.processStates {
				gauge(s.process, truth(name == m.Process.String()), m.Name, name)
			}
			gauge(s.running, float64(running[m.Name]), m.Name)
			gauge(s.waiting, float64(waiting[m.Name]), m.Name)
		}
	}
	if s.o.Cards != nil {
		for _, c := range s.o.Cards() {
			s.collectCard(gauge, &c)
		}
	}
}

// collectCard sends the metrics of a card. What the driver does not report is left
// out.
func (s *state) collectCard(gauge func(d *prometheus.Desc, value float64, labels ...string), c *activity.Card) {
	if c.Total > 0 {
		gauge(s.size, float64(c.Total), c.PCI, c.Name)
	}
	if c.Known {
		gauge(s.memory, float64(c.Ours), c.PCI, c.Name, "ours")
		gauge(s.memory, float64(c.Others()), c.PCI, c.Name, "others")
		gauge(s.memory, float64(c.Total-min(c.Used, c.Total)), c.PCI, c.Name, "free")
	}
	if c.Suspended {
		return
	}
	for _, v := range []struct {
		desc  *prometheus.Desc
		value float64
		label []string
	}{
		{s.temperature, c.EdgeCelsius, []string{"edge"}},
		{s.temperature, c.JunctionCelsius, []string{"junction"}},
		{s.temperature, c.MemoryCelsius, []string{"memory"}},
		{s.power, c.PowerWatts, nil},
		{s.limit, c.PowerCapWatts, nil},
		{s.clock, c.ShaderMHz * 1e6, []string{"shader"}},
		{s.clock, c.MemoryMHz * 1e6, []string{"memory"}},
	} {
		if v.value > 0 {
			gauge(v.desc, v.value, append([]string{c.PCI, c.Name}, v.label...)...)
		}
	}
	gauge(s.busy, c.BusyPercent/100, c.PCI, c.Name)
	for _, kind := range gpu.ThrottleKinds() {
		gauge(s.throttled, truth(slices.Contains(c.Throttled, kind)), c.PCI, c.Name, kind)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}
