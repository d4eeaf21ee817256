package rdna3

//go:noescape
func matrixWidenF16(to *[tile][tile]float64, from *uint32, stride int)

//go:noescape
func matrixWidenBF16(to *[tile][tile]float64, from *uint32, stride int)

//go:noescape
func matrixFromF32(to *[tile][tile]float64, from *uint32)

//go:noescape
func matrixToF32(to *uint32, from *[tile][tile]float64)

//go:noescape
func matrixProduct(acc, a, b *[tile][tile]float64)

//go:noescape
func matrixPairs(acc *[tile][tile]uint32, a, b *[8][tile]uint32)
