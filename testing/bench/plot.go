package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Dimensions of the plot in pixels.
const (
	plotWidth  = 760
	labelWidth = 270
	barHeight  = 22
	barStep    = 32
	plotTop    = 44
)

// svg draws a bar for each row on a logarithmic scale of microseconds, because the cases
// differ by two orders of magnitude.
func svg(rows []Row) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, r := range rows {
		low, high = min(low, r.Wall/1000), max(high, r.Wall/1000)
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if to <= from {
		to = from + 1
	}
	x := func(us float64) float64 {
		return labelWidth + (math.Log10(us)-from)/(to-from)*(plotWidth-labelWidth-70)
	}
	height := plotTop + barStep*len(rows) + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="13">`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", plotWidth, height)
	b.WriteString(`<text x="10" y="22" font-size="15">Cost of a token from socket to program, µs (logarithmic)</text>` + "\n")
	for e := from; e <= to; e++ {
		v := math.Pow(10, e)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#ddd"/>`+"\n", x(v), plotTop-6, x(v), height-24)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle" fill="#666">%g</text>`+"\n", x(v), height-8, v)
	}
	for i, r := range rows {
		y, us, fill := plotTop+barStep*i, r.Wall/1000, "#9aa5b1"
		if !r.Peer {
			fill = "#c0392b"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", labelWidth-8, y+16, html.EscapeString(r.Name))
		fmt.Fprintf(&b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", labelWidth, y, max(x(us)-labelWidth, 1), barHeight, fill)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.2f</text>`+"\n", x(us)+6, y+16, us)
	}
	b.WriteString("</svg>\n")
	return b.String()
}
