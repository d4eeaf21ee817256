package child

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// PlotName is the file name of the picture in the section of Flow.
const PlotName = "benchmarks-flow.svg"

// Dimensions of the plot in pixels.
const (
	width, height  = 760, 420
	left, right    = 70, 20
	top, bottom    = 50, 50
	legend, margin = 18, 0.15
)

// Plot draws tokens per second over the number of streams, both on logarithmic scales:
// ours as points, the raw reader's as lines.
func Plot(points []Point) string {
	lowX, highX, lowY, highY := math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)
	for _, p := range points {
		lowX, highX = min(lowX, float64(p.Streams)), max(highX, float64(p.Streams))
		lowY, highY = min(lowY, p.Ours, p.Raw), max(highY, p.Ours, p.Raw)
	}
	x, y := scale(lowX, highX, left, width-right), scale(lowY, highY, height-bottom, top)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", width, height)
	b.WriteString(`<text x="10" y="22" font-size="15">Tokens per second over the number of streams (logarithmic); line: raw reader, dots: go-rocm</text>` + "\n")
	for e := math.Ceil(math.Log10(lowY)); e <= math.Log10(highY); e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&b, `<line x1="%d" y1="%.1f" x2="%d" y2="%.1f" stroke="#ddd"/>`+"\n", left, y(v), width-right, y(v))
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end" fill="#666">%g</text>`+"\n", left-8, y(v)+4, v)
	}
	colours := []string{"#c0392b", "#2471a3", "#e59866", "#7fb3d5"}
	marked := map[int]bool{}
	for i, series := range group(points) {
		colour := colours[i%len(colours)]
		var line []string
		for _, p := range series {
			line = append(line, fmt.Sprintf("%.1f,%.1f", x(float64(p.Streams)), y(p.Raw)))
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="4" fill="%s"/>`+"\n", x(float64(p.Streams)), y(p.Ours), colour)
			if !marked[p.Streams] {
				marked[p.Streams] = true
				fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#666">%d</text>`+"\n", x(float64(p.Streams)), height-bottom+20, p.Streams)
			}
		}
		fmt.Fprintf(&b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.5"/>`+"\n", strings.Join(line, " "), colour)
		fmt.Fprintf(&b, `<text x="%d" y="%d" fill="%s">%s</text>`+"\n", left+10, top+legend*i, colour, html.EscapeString(series[0].Model+", "+series[0].Transport))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// scale returns a logarithmic mapping of a range, with a margin on both sides.
func scale(low, high, from, to float64) func(float64) float64 {
	a, z := math.Log10(low)-margin, math.Log10(high)+margin
	return func(v float64) float64 { return from + (math.Log10(v)-a)/(z-a)*(to-from) }
}

// group groups the points by model and transport.
func group(points []Point) [][]Point {
	var out [][]Point
	for i, p := range points {
		if i == 0 || p.Model != points[i-1].Model || p.Transport != points[i-1].Transport {
			out = append(out, nil)
		}
		out[len(out)-1] = append(out[len(out)-1], p)
	}
	return out
}
