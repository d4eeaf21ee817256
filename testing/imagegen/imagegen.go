// Package imagegen draws images for tests of models that read them. The bytes
// depend on the arguments alone; the images show nothing in particular.
package imagegen

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
)

// PNG draws a square of side pixels in blocks of random colours, eight to a row.
func PNG(side int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 0))
	var colours [8][8]color.NRGBA
	for y := range colours {
		for x := range colours[y] {
			v := r.Uint32()
			colours[y][x] = color.NRGBA{R: uint8(v), G: uint8(v >> 8), B: uint8(v >> 16), A: 255}
		}
	}
	img := image.NewNRGBA(image.Rect(0, 0, side, side))
	for y := range side {
		for x := range side {
			img.SetNRGBA(x, y, colours[y*8/side][x*8/side])
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		panic(err) // only for a side of 0 or less
	}
	return out.Bytes()
}
