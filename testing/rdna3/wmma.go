package rdna3

// The matrix instructions multiply 16x16 matrices. Row i of A is in lane i, from its first register on; so is column i
// of B. Both have a copy in the lanes 16 higher. Row 2r of the result is in the lower half of the lanes of register r,
// row 2r+1 in the upper half; with waves of 64 lanes it is row 4r to 4r+3.

const tile = 16

// tileAt returns the register and the lane of an element of C or D.
func (w *Wave) tileAt(row, col int) (reg, lane int) {
	halves := w.lanes / tile
	return row / halves, row%halves*tile + col
}

// matrixRegs reads A or B: line is the row of A or the column of B.
func (w *Wave) matrixRegs(r Reg, line int, count int) (out [8]uint32) {
	for n := range count {
		out[n] = w.reg(r + Reg(n))[line]
	}
	return out
}

// tileBits returns an element of C as it is stored: the upper half of a register if high is set.
func (w *Wave) tileBits(i *Inst, row, col int, bits int, high bool) uint64 {
	if !i.Src[2].IsVGPR() {
		return w.scalar(i, i.Src[2], Kind{Letters: i.Op.Dst.Letters, Bits: bits, Count: 1})
	}
	reg, lane := w.tileAt(row, col)
	x := uint64(w.reg(i.Src[2] + Reg(reg))[lane])
	if bits == 16 {
		if high {
			x >>= 16
		}
		x &= 0xffff
	}
	return x
}

// wmmaFloat runs the forms on floating-point numbers. wide says that C and D are float32.
func (w *Wave) wmmaFloat(i *Inst, f narrow, wide bool) {
	var a, b [tile][tile]float64
	for line := range tile {
		ra, rb := w.matrixRegs(i.Src[0], line, 8), w.matrixRegs(i.Src[1], line, 8)
		for k := range tile {
			shift := 16 * (k % 2)
			a[line][k] = negatedIf(f.widen(uint64(ra[k/2])>>shift&0xffff), i, 0, k%2)
			b[line][k] = negatedIf(f.widen(uint64(rb[k/2])>>shift&0xffff), i, 1, k%2)
		}
	}
	format, bits, high := single, 32, false
	if !wide {
		format, bits, high = f, 16, i.OpSel&4 != 0
	}
	var d [tile][tile]uint64
	for row := range tile {
		for col := range tile {
			c := w.tileBits(i, row, col, bits, high)
			if i.Neg&4 != 0 {
				c ^= 1 << (bits - 1)
			}
			if i.NegHi&4 != 0 {
				c &^= 1 << (bits - 1)
			}
			d[row][col] = format.round(dotRow(&a[row], &b[col], format.widen(c)), toNearest)
		}
	}
	w.storeTile(i, &d, bits, high)
}

// negatedIf applies the negation of a half of source n.
func negatedIf(x float64, i *Inst, n, half int) float64 {
	if half == 0 && i.Neg>>n&1 != 0 || half == 1 && i.NegHi>>n&1 != 0 {
		return -x
	}
	return x
}

// dotRow adds the products of a row and a column to c. The card rounds sums of a few products; this keeps float64
// to the end.
func dotRow(a, b *[tile]float64, c float64) float64 {
	for k := range tile {
		c += a[k] * b[k]
	}
	return c
}

// storeTile writes D, of which results of 16 bits fill one half of the registers.
func (w *Wave) storeTile(i *Inst, d *[tile][tile]uint64, bits int, high bool) {
	for row := range tile {
		for col := range tile {
			reg, lane := w.tileAt(row, col)
			to := &w.reg(i.Dst + Reg(reg))[lane]
			switch x := uint32(d[row][col]); {
			case bits == 32:
				*to = x
			case high:
				*to = *to&0xffff | x<<16
			default:
				*to = *to&0xffff0000 | x
			}
		}
	}
}

// wmmaInt runs the forms on integers of n bits. The low negation bits say which side is signed.
func (w *Wave) wmmaInt(i *Inst, n int) {
	var a, b [tile][tile]int64
	perReg := 32 / n
	for line := range tile {
		ra, rb := w.matrixRegs(i.Src[0], line, tile/perReg), w.matrixRegs(i.Src[1], line, tile/perReg)
		for k := range tile {
			a[line][k] = signedIf(uint64(ra[k/perReg])>>(n*(k%perReg)), n, i.Neg&1 != 0)
			b[line][k] = signedIf(uint64(rb[k/perReg])>>(n*(k%perReg)), n, i.Neg&2 != 0)
		}
	}
	var d [tile][tile]uint64
	for row := range tile {
		for col := range tile {
			sum := sext(w.tileBits(i, row, col, 32, false), 32)
			for k := range tile {
				sum += a[row][k] * b[col][k]
			}
			d[row][col] = uint64(sum)
			if i.Clamp {
				d[row][col] = clamp(sum, -1<<31, 1<<31-1)
			}
		}
	}
	w.storeTile(i, &d, 32, false)
}

func signedIf(x uint64, n int, signed bool) int64 {
	if signed {
		return sext(x, n)
	}
	return int64(x & (1<<n - 1))
}
