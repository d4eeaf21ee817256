package rdna3

//go:noescape
func vecAddF32(d, a, b, c *uint32, n int)

//go:noescape
func vecSubF32(d, a, b, c *uint32, n int)

//go:noescape
func vecSubrevF32(d, a, b, c *uint32, n int)

//go:noescape
func vecMulF32(d, a, b, c *uint32, n int)

//go:noescape
func vecFmaF32(d, a, b, c *uint32, n int)

//go:noescape
func vecMinF32(d, a, b, c *uint32, n int)

//go:noescape
func vecMaxF32(d, a, b, c *uint32, n int)

//go:noescape
func vecTruncF32(d, a, b, c *uint32, n int)

//go:noescape
func vecCeilF32(d, a, b, c *uint32, n int)

//go:noescape
func vecFloorF32(d, a, b, c *uint32, n int)

//go:noescape
func vecRndneF32(d, a, b, c *uint32, n int)

//go:noescape
func vecFractF32(d, a, b, c *uint32, n int)

//go:noescape
func vecRcpF32(d, a, b, c *uint32, n int)

//go:noescape
func vecSqrtF32(d, a, b, c *uint32, n int)

//go:noescape
func vecRsqF32(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32F16(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF16F32(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32I32(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32U32(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32Ubyte0(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32Ubyte1(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32Ubyte2(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtF32Ubyte3(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtI32F32(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtU32F32(d, a, b, c *uint32, n int)

//go:noescape
func vecPkAddF16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMulF16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkFmaF16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMinF16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMaxF16(d, a, b, c *uint32, n int)

//go:noescape
func vecDot2F32F16(d, a, b, c *uint32, n int)

//go:noescape
func vecMin3F32(d, a, b, c *uint32, n int)

//go:noescape
func vecMax3F32(d, a, b, c *uint32, n int)
