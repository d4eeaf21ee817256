package browser

import (
	"bytes"
	"image/png"

	"github.com/chromedp/chromedp"
)

// Screenshot returns an image of what the tab shows, as a small PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	img, err := png.Decode(bytes.NewReader(Get(p, chromedp.CaptureScreenshot())))
	if err != nil {
		p.t.Fatal(err)
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&b, img); err != nil {
		p.t.Fatal(err)
	}
	return b.Bytes()
}
