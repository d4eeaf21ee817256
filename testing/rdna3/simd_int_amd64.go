package rdna3

//go:noescape
func vecNotB32(d, a, b, c *uint32, n int)

//go:noescape
func vecAndB32(d, a, b, c *uint32, n int)

//go:noescape
func vecOrB32(d, a, b, c *uint32, n int)

//go:noescape
func vecXorB32(d, a, b, c *uint32, n int)

//go:noescape
func vecXnorB32(d, a, b, c *uint32, n int)

//go:noescape
func vecLshlrevB32(d, a, b, c *uint32, n int)

//go:noescape
func vecLshrrevB32(d, a, b, c *uint32, n int)

//go:noescape
func vecAshrrevI32(d, a, b, c *uint32, n int)

//go:noescape
func vecAddU32(d, a, b, c *uint32, n int)

//go:noescape
func vecSubU32(d, a, b, c *uint32, n int)

//go:noescape
func vecSubrevU32(d, a, b, c *uint32, n int)

//go:noescape
func vecMulLoU32(d, a, b, c *uint32, n int)

//go:noescape
func vecMulU32U24(d, a, b, c *uint32, n int)

//go:noescape
func vecMadU32U24(d, a, b, c *uint32, n int)

//go:noescape
func vecMulI32I24(d, a, b, c *uint32, n int)

//go:noescape
func vecMadI32I24(d, a, b, c *uint32, n int)

//go:noescape
func vecMulHiU32(d, a, b, c *uint32, n int)

//go:noescape
func vecMulHiI32(d, a, b, c *uint32, n int)

//go:noescape
func vecAdd3U32(d, a, b, c *uint32, n int)

//go:noescape
func vecLshlAddU32(d, a, b, c *uint32, n int)

//go:noescape
func vecAddLshlU32(d, a, b, c *uint32, n int)

//go:noescape
func vecLshlOrB32(d, a, b, c *uint32, n int)

//go:noescape
func vecAndOrB32(d, a, b, c *uint32, n int)

//go:noescape
func vecOr3B32(d, a, b, c *uint32, n int)

//go:noescape
func vecXor3B32(d, a, b, c *uint32, n int)

//go:noescape
func vecXadU32(d, a, b, c *uint32, n int)

//go:noescape
func vecBfiB32(d, a, b, c *uint32, n int)

//go:noescape
func vecBfeU32(d, a, b, c *uint32, n int)

//go:noescape
func vecBfeI32(d, a, b, c *uint32, n int)

//go:noescape
func vecBfmB32(d, a, b, c *uint32, n int)

//go:noescape
func vecAlignbitB32(d, a, b, c *uint32, n int)

//go:noescape
func vecAlignbyteB32(d, a, b, c *uint32, n int)

//go:noescape
func vecMinI32(d, a, b, c *uint32, n int)

//go:noescape
func vecMaxI32(d, a, b, c *uint32, n int)

//go:noescape
func vecMinU32(d, a, b, c *uint32, n int)

//go:noescape
func vecMaxU32(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtI32I16(d, a, b, c *uint32, n int)

//go:noescape
func vecCvtU32U16(d, a, b, c *uint32, n int)

//go:noescape
func vecPackB32F16(d, a, b, c *uint32, n int)

//go:noescape
func vecMadU32U16(d, a, b, c *uint32, n int)

//go:noescape
func vecMadI32I16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkAddU16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkSubU16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMulLoU16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMadU16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMinI16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMaxI16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMinU16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkMaxU16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkLshrrevB16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkAshrrevI16(d, a, b, c *uint32, n int)

//go:noescape
func vecPkLshlrevB16(d, a, b, c *uint32, n int)

//go:noescape
func vecDot4UU(d, a, b, c *uint32, n int)

//go:noescape
func vecDot4SU(d, a, b, c *uint32, n int)

//go:noescape
func vecDot4US(d, a, b, c *uint32, n int)

//go:noescape
func vecDot4SS(d, a, b, c *uint32, n int)

//go:noescape
func vecDot8UU(d, a, b, c *uint32, n int)

//go:noescape
func vecDot8SU(d, a, b, c *uint32, n int)

//go:noescape
func vecDot8US(d, a, b, c *uint32, n int)

//go:noescape
func vecDot8SS(d, a, b, c *uint32, n int)

//go:noescape
func pairsEvenU(d, a, b, c *uint32, n int)

//go:noescape
func pairsEvenS(d, a, b, c *uint32, n int)

//go:noescape
func pairsOddU(d, a, b, c *uint32, n int)

//go:noescape
func pairsOddS(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble0U(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble0S(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble1U(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble1S(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble2U(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble2S(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble3U(d, a, b, c *uint32, n int)

//go:noescape
func pairsNibble3S(d, a, b, c *uint32, n int)

//go:noescape
func vecMin3I32(d, a, b, c *uint32, n int)

//go:noescape
func vecMax3I32(d, a, b, c *uint32, n int)

//go:noescape
func vecMin3U32(d, a, b, c *uint32, n int)

//go:noescape
func vecMax3U32(d, a, b, c *uint32, n int)

//go:noescape
func vecMinmaxI32(d, a, b, c *uint32, n int)

//go:noescape
func vecMaxminI32(d, a, b, c *uint32, n int)

//go:noescape
func vecMinmaxU32(d, a, b, c *uint32, n int)

//go:noescape
func vecMaxminU32(d, a, b, c *uint32, n int)
