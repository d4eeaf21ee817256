package rdna3

import "golang.org/x/sys/cpu"

// hasLanes reports whether the processor has what the functions in assembly need.
var hasLanes = cpu.X86.HasAVX2 && cpu.X86.HasFMA && hasF16C()

// hasF16C reports whether the processor converts numbers of 16 bits.
func hasF16C() bool

//go:noescape
func vecFlush32(d, a, b, c *uint32, n int)

//go:noescape
func vecClamp32(d, a, b, c *uint32, n int)

//go:noescape
func vecTimes2(d, a, b, c *uint32, n int)

//go:noescape
func vecTimes4(d, a, b, c *uint32, n int)

//go:noescape
func vecHalved(d, a, b, c *uint32, n int)

//go:noescape
func vecHighHalf(d, a, b, c *uint32, n int)

//go:noescape
func vecToTop(d, a, b, c *uint32, n int)

//go:noescape
func vecLowTwice(d, a, b, c *uint32, n int)

//go:noescape
func vecHighTwice(d, a, b, c *uint32, n int)

//go:noescape
func vecSwapped(d, a, b, c *uint32, n int)

//go:noescape
func vecToLow(d, a, b, c *uint32, n int)

//go:noescape
func vecToHigh(d, a, b, c *uint32, n int)

//go:noescape
func vecMove(d, a, b, c *uint32, n int)

//go:noescape
func testLtF32(a, b *uint32, n int) uint64

//go:noescape
func testLeF32(a, b *uint32, n int) uint64

//go:noescape
func testEqF32(a, b *uint32, n int) uint64

//go:noescape
func testLgF32(a, b *uint32, n int) uint64

//go:noescape
func testOF32(a, b *uint32, n int) uint64

//go:noescape
func testLtI32(a, b *uint32, n int) uint64

//go:noescape
func testLtU32(a, b *uint32, n int) uint64

//go:noescape
func testEqI32(a, b *uint32, n int) uint64

//go:noescape
func laneFill(d *uint32, x uint32, n int)

//go:noescape
func laneSelect(d, a, b *uint32, mask uint64, n int)

//go:noescape
func laneAddCarry(d, a, b *uint32, mask uint64, n int) uint64

//go:noescape
func laneSubBorrow(d, a, b *uint32, mask uint64, n int) uint64
