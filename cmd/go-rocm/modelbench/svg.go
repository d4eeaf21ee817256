package modelbench

import (
	"fmt"
	"html"
	"io"
	"strings"

	"forge.lthn.ai/core/go-rocm/runtime/speed"
)

// Sizes of the chart, in pixels.
const (
	chartWidth = 760
	labelWidth = 280
	barHeight  = 16
	barGap     = 6
	headHeight = 44
)

// WriteSVG draws the runs as bars: one chart for the generation and one for prompts,
// with a bar for each depth and a line for the standard deviation.
func WriteSVG(w io.Writer, title string, runs []speed.Run) error {
	var b strings.Builder
	y := headHeight
	for _, chart := range []struct {
		name  string
		value func(speed.Depth) speed.Sample
	}{
		{"generation, tokens/s", func(d speed.Depth) speed.Sample { return d.Generation }},
		{"prompt, tokens/s", func(d speed.Depth) speed.Sample { return d.Prompt }},
	} {
		fmt.Fprintf(&b, `<text x="8" y="%d" font-weight="bold">%s</text>`+"\n", y+12, html.EscapeString(chart.name))
		y += barHeight + barGap
		y = drawBars(&b, y, runs, chart.value) + barHeight
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="white"/>
<text x="8" y="22" font-size="15">%s</text>
%s</svg>
`, chartWidth, y, chartWidth, y, html.EscapeString(title), b.String())
	return err
}

// drawBars draws a bar for each run and depth from y downwards and returns the next y.
func drawBars(b *strings.Builder, y int, runs []speed.Run, value func(speed.Depth) speed.Sample) int {
	largest := 0.0
	for _, r := range runs {
		for _, d := range r.Depths {
			largest = max(largest, value(d).Mean+value(d).Deviation)
		}
	}
	scale := float64(chartWidth-labelWidth-90) / max(largest, 1e-9)
	colours := map[string]string{"hip": "#c0392b", "vulkan": "#2471a3", "cpu": "#7f8c8d"}
	for _, r := range runs {
		for _, d := range r.Depths {
			v := value(d)
			end := labelWidth + v.Mean*scale
			fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end">%s, depth %d</text>`, labelWidth-6, y+12, html.EscapeString(r.String()), d.Tokens)
			fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, labelWidth, y, v.Mean*scale, barHeight, colours[r.Backend])
			fmt.Fprintf(b, `<path d="M%.1f %dH%.1f" stroke="black"/>`, labelWidth+max(v.Mean-v.Deviation, 0)*scale, y+barHeight/2, end+v.Deviation*scale)
			fmt.Fprintf(b, `<text x="%.1f" y="%d">%.1f ± %.1f</text>`+"\n", end+v.Deviation*scale+6, y+12, v.Mean, v.Deviation)
			y += barHeight + barGap
		}
	}
	return y
}
