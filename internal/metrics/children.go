package metrics

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Child is a llama-server that can be asked for its metrics. *supervise.Child is one.
type Child interface {
	BaseURL() string
	HTTPClient() *http.Client
	State() supervise.State
}

const (
	// childTimeout limits the question to a llama-server, which answers at once
	// unless it is stuck.
	childTimeout = 2 * time.Second
	// maxChildMetrics limits its answer, in bytes.
	maxChildMetrics = 1 << 20
	// childPrefix begins the names of llama-server's metrics (server-context.cpp).
	childPrefix = "llamacpp:"
	// maxChildFamilies limits how many metrics a llama-server may have.
	maxChildFamilies = 200
)

// children collects the metrics of the llama-servers that are ready, with the label
// model. It loads no model, and a llama-server that does not answer has none.
type children struct{ o Options }

func newChildren(o Options) *children { return &children{o} }

// Describe implements prometheus.Collector: what llama-server has depends on its
// version.
func (*children) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *children) Collect(out chan<- prometheus.Metric) {
	if c.o.Models == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), childTimeout)
	defer cancel()
	var all sync.WaitGroup
	for _, m := range c.o.Models() {
		if m.Child == nil || m.Child.State() != supervise.Ready {
			continue
		}
		all.Go(func() {
			families, err := scrape(ctx, m.Child)
			if err != nil {
				if c.o.Log != nil {
					c.o.Log.Debug("the metrics of a llama-server could not be read", "model", m.Name, "cause", err.Error())
				}
				return
			}
			for name, f := range families {
				collectFamily(out, name, f, m.Name)
			}
		})
	}
	all.Wait()
}

// scrape asks a llama-server for its metrics.
func scrape(ctx context.Context, c Child) (map[string]*dto.MetricFamily, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.BaseURL()+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := c.HTTPClient().Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered with the status %d", res.StatusCode)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(io.LimitReader(res.Body, maxChildMetrics))
	if err == nil && len(families) > maxChildFamilies {
		err = fmt.Errorf("it has %d metrics", len(families))
	}
	return families, err
}

// collectFamily sends the counters and gauges of llama-server.
func collectFamily(out chan<- prometheus.Metric, name string, f *dto.MetricFamily, model string) {
	if !strings.HasPrefix(name, childPrefix) || len(f.GetMetric()) != 1 || len(f.GetMetric()[0].GetLabel()) > 0 {
		return
	}
	desc := prometheus.NewDesc(name, f.GetHelp(), []string{"model"}, nil)
	kind := prometheus.GaugeValue
	var value float64
	switch m := f.GetMetric()[0]; f.GetType() {
	case dto.MetricType_COUNTER:
		kind, value = prometheus.CounterValue, m.GetCounter().GetValue()
	case dto.MetricType_GAUGE:
		value = m.GetGauge().GetValue()
	default:
		return
	}
	if metric, err := prometheus.NewConstMetric(desc, kind, value, model); err == nil {
		out <- metric
	}
}
