package llamaapi

import (
	"fmt"
	"math"
	"strconv"
)

// number reads a number and reports whether it is written as an integer.
func (c *cursor) number() (raw []byte, integer bool, err error) {
	start := c.i
	c.digit('-')
	switch {
	case c.digit('0'):
	case c.digits():
	default:
		return nil, false, c.unexpected("instead of a number")
	}
	integer = true
	if c.digit('.') {
		integer = false
		if !c.digits() {
			return nil, false, c.unexpected("after a decimal point")
		}
	}
	if c.digit('e') || c.digit('E') {
		integer = false
		if !c.digit('+') {
			c.digit('-')
		}
		if !c.digits() {
			return nil, false, c.unexpected("in an exponent")
		}
	}
	return c.b[start:c.i], integer, nil
}

func (c *cursor) digit(ch byte) bool {
	if c.i < len(c.b) && c.b[c.i] == ch {
		c.i++
		return true
	}
	return false
}

func (c *cursor) digits() bool {
	start := c.i
	for c.i < len(c.b) && c.b[c.i] >= '0' && c.b[c.i] <= '9' {
		c.i++
	}
	return c.i > start
}

// integer reads an integer; null counts as 0.
func (c *cursor) integer() (int64, error) {
	if c.null() {
		return 0, nil
	}
	// Fast path for short plain integers.
	n, i := int64(0), c.i
	for i < len(c.b) && i-c.i < 9 && c.b[i] >= '0' && c.b[i] <= '9' {
		n = n*10 + int64(c.b[i]-'0')
		i++
	}
	if i > c.i && i < len(c.b) && (c.b[i] == ',' || c.b[i] == ']' || c.b[i] == '}') && (c.b[c.i] != '0' || i == c.i+1) {
		c.i = i
		return n, nil
	}
	raw, whole, err := c.number()
	if err != nil {
		return 0, err
	}
	if !whole {
		return 0, fmt.Errorf("%q instead of an integer", raw)
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

// int32 reads a token id.
func (c *cursor) int32() (int32, error) {
	n, err := c.integer()
	if err == nil && (n < math.MinInt32 || n > math.MaxInt32) {
		err = fmt.Errorf("%d does not fit a token id", n)
	}
	return int32(n), err //nolint:gosec // checked above
}

// float32 reads a number; null counts as 0.
func (c *cursor) float32() (float32, error) {
	if c.null() {
		return 0, nil
	}
	raw, _, err := c.number()
	if err != nil {
		return 0, err
	}
	f, err := strconv.ParseFloat(string(raw), 32)
	if err != nil {
		return 0, fmt.Errorf("%q is out of range", raw)
	}
	return float32(f), nil
}
