package ggufgen

import (
	"encoding/binary"
	"io"
	"math"
	"math/rand/v2"
)

// normalF16 fills with normally distributed half-precision numbers.
func normalF16(r *rand.Rand, deviation float64) Fill {
	return func(w io.Writer, size uint64) error {
		buf := make([]byte, 0, 64<<10)
		for left := size / 2; left > 0; {
			n := min(left, uint64(cap(buf)/2))
			buf = buf[:0]
			for range n {
				buf = binary.LittleEndian.AppendUint16(buf, half(float32(r.NormFloat64()*deviation)))
			}
			if _, err := w.Write(buf); err != nil {
				return err
			}
			left -= n
		}
		return nil
	}
}

// normalF32 fills with normally distributed single-precision numbers.
func normalF32(r *rand.Rand, deviation float64) Fill {
	return func(w io.Writer, size uint64) error {
		for range size / 4 {
			v := math.Float32bits(float32(r.NormFloat64() * deviation))
			if _, err := w.Write(binary.LittleEndian.AppendUint32(nil, v)); err != nil {
				return err
			}
		}
		return nil
	}
}

// amplified multiplies the single-precision numbers in size bytes, starting at from.
func amplified(fill Fill, from, size uint64, factor float32) Fill {
	return func(w io.Writer, n uint64) error {
		return fill(&amplifier{w: w, from: from, to: from + size, factor: factor}, n)
	}
}

// amplifier must be given whole numbers.
type amplifier struct {
	w            io.Writer
	at, from, to uint64
	factor       float32
}

// Write implements io.Writer.
func (a *amplifier) Write(p []byte) (int, error) {
	out := append([]byte(nil), p...)
	for i := 0; i+4 <= len(out); i += 4 {
		if at := a.at + uint64(i); at >= a.from && at < a.to {
			v := math.Float32frombits(binary.LittleEndian.Uint32(out[i:])) * a.factor
			binary.LittleEndian.PutUint32(out[i:], math.Float32bits(v))
		}
	}
	n, err := a.w.Write(out)
	a.at += uint64(n)
	return n, err
}

// ones fills with single-precision ones, the initial value of norms.
func ones(w io.Writer, size uint64) error { return constant(1)(w, size) }

// constant fills with one single-precision number.
func constant(v float32) Fill {
	return func(w io.Writer, size uint64) error {
		one := binary.LittleEndian.AppendUint32(nil, math.Float32bits(v))
		for range size / 4 {
			if _, err := w.Write(one); err != nil {
				return err
			}
		}
		return nil
	}
}

// half rounds to the nearest IEEE 754 half-precision number, ties to even. Numbers that are too
// large become infinite, those that are too small become zero.
func half(f float32) uint16 {
	b := math.Float32bits(f)
	sign := uint16(b >> 16 & 0x8000)
	exp := int(b>>23&0xff) - 127 + 15
	frac := b & 0x7fffff
	switch {
	case exp == 0xff-127+15 && frac != 0:
		return sign | 0x7e00
	case exp >= 31:
		return sign | 0x7c00
	case exp <= 0:
		if exp < -10 {
			return sign
		}
		frac |= 0x800000
		shift := uint(14 - exp)
		return sign | roundShift(frac, shift)
	}
	return sign | (uint16(exp)<<10 + roundShift(frac, 13))
}

// roundShift shifts right and rounds to nearest, ties to even.
func roundShift(v uint32, n uint) uint16 {
	out := v >> n
	rest := v & (1<<n - 1)
	middle := uint32(1) << (n - 1)
	if rest > middle || (rest == middle && out&1 == 1) {
		out++
	}
	return uint16(out)
}
