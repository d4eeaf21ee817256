package llamaapi

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// cursor parses JSON text without allocating values. It accepts and rejects the
// same inputs as encoding/json; a fuzz test compares the two.
type cursor struct {
	b []byte
	i int
}

// maxDepth is the nesting depth that encoding/json allows.
const maxDepth = 10000

var errEnd = errors.New("unexpected end of JSON")

func (c *cursor) unexpected(where string) error {
	if c.i >= len(c.b) {
		return errEnd
	}
	return fmt.Errorf("unexpected %q %s at byte %d", c.b[c.i], where, c.i)
}

func (c *cursor) skipSpace() {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return
		}
	}
}

// consume skips white space and then ch, and reports whether ch was there.
func (c *cursor) consume(ch byte) bool {
	c.skipSpace()
	if c.i < len(c.b) && c.b[c.i] == ch {
		c.i++
		return true
	}
	return false
}

// next reports whether another member or element follows. closing is the bracket
// that ends the list; first is true before the first element.
func (c *cursor) next(closing byte, first bool) (bool, error) {
	if c.consume(closing) {
		return false, nil
	}
	if first {
		return true, nil
	}
	if !c.consume(',') {
		return false, c.unexpected("instead of a comma")
	}
	return true, nil
}

// key reads a member's name and the colon. The result points into the text unless
// the name has escapes.
func (c *cursor) key() ([]byte, error) {
	c.skipSpace()
	raw, plain, err := c.str()
	if err != nil {
		return nil, err
	}
	if !c.consume(':') {
		return nil, c.unexpected("instead of a colon")
	}
	if !plain {
		raw = unescape(nil, raw)
	}
	return raw, nil
}

// str reads a string and returns the bytes between the quotes. plain means that
// these bytes are the value: no escapes and valid UTF-8.
func (c *cursor) str() (raw []byte, plain bool, err error) {
	if c.i >= len(c.b) || c.b[c.i] != '"' {
		return nil, false, c.unexpected("instead of a string")
	}
	start := c.i + 1
	ascii := true
	for i := start; i < len(c.b); i++ {
		ch := c.b[i]
		if ch >= 0x20 && ch < utf8.RuneSelf && ch != '"' && ch != '\\' {
			continue
		}
		switch {
		case ch == '"':
			c.i = i + 1
			raw = c.b[start:i]
			return raw, ascii || utf8.Valid(raw), nil
		case ch == '\\':
			c.i = i
			return c.strEscaped(start)
		case ch < 0x20:
			c.i = i
			return nil, false, c.unexpected("in a string")
		default:
			ascii = false
		}
	}
	c.i = len(c.b)
	return nil, false, errEnd
}

// strEscaped continues str at the first backslash.
func (c *cursor) strEscaped(start int) ([]byte, bool, error) {
	for c.i < len(c.b) {
		switch ch := c.b[c.i]; {
		case ch == '"':
			c.i++
			return c.b[start : c.i-1], false, nil
		case ch < 0x20:
			return nil, false, c.unexpected("in a string")
		case ch != '\\':
			c.i++
		default:
			c.i++
			if c.i >= len(c.b) {
				return nil, false, errEnd
			}
			switch c.b[c.i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				c.i++
			case 'u':
				c.i++
				for range 4 {
					if c.i >= len(c.b) || !isHex(c.b[c.i]) {
						return nil, false, c.unexpected("in a \\u escape")
					}
					c.i++
				}
			default:
				return nil, false, c.unexpected("after a backslash")
			}
		}
	}
	return nil, false, errEnd
}

func isHex(ch byte) bool {
	return ch >= '0' && ch <= '9' || ch >= 'a' && ch <= 'f' || ch >= 'A' && ch <= 'F'
}

// unescape appends the value of a string that str accepted. It resolves escapes
// and replaces unpaired surrogates and invalid UTF-8 by U+FFFD.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		ch := raw[i]
		if ch >= utf8.RuneSelf {
			r, n := utf8.DecodeRune(raw[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		if ch != '\\' {
			dst = append(dst, ch)
			i++
			continue
		}
		i += 2
		switch raw[i-1] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := hex4(raw[i:])
			i += 4
			if utf16.IsSurrogate(r) {
				low := rune(utf8.RuneError)
				if i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
					low = hex4(raw[i+2:])
				}
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					r = pair
					i += 6
				} else {
					r = utf8.RuneError
				}
			}
			dst = utf8.AppendRune(dst, r)
		default: // the quote, the backslash, the slash
			dst = append(dst, raw[i-1])
		}
	}
	return dst
}

func hex4(b []byte) rune {
	var r rune
	for _, ch := range b[:4] {
		switch {
		case ch <= '9':
			ch -= '0'
		case ch >= 'a':
			ch -= 'a' - 10
		default:
			ch -= 'A' - 10
		}
		r = r<<4 | rune(ch)
	}
	return r
}

// null skips a null and reports whether there was one.
func (c *cursor) null() bool {
	c.skipSpace()
	if len(c.b)-c.i >= 4 && string(c.b[c.i:c.i+4]) == "null" {
		c.i += 4
		return true
	}
	return false
}

// boolean reads true or false; null counts as false.
func (c *cursor) boolean() (bool, error) {
	c.skipSpace()
	rest := c.b[c.i:]
	switch {
	case len(rest) >= 5 && string(rest[:5]) == "false":
		c.i += 5
		return false, nil
	case len(rest) >= 4 && string(rest[:4]) == "true":
		c.i += 4
		return true, nil
	case c.null():
		return false, nil
	}
	return false, c.unexpected("instead of true or false")
}

// text reads a string; null counts as empty.
func (c *cursor) text() (string, error) {
	if c.null() {
		return "", nil
	}
	raw, plain, err := c.str()
	switch {
	case err != nil:
		return "", err
	case plain:
		return string(raw), nil
	}
	return string(unescape(make([]byte, 0, len(raw)), raw)), nil
}

// skip skips a value at the given nesting depth and returns its text.
func (c *cursor) skip(depth int) ([]byte, error) {
	c.skipSpace()
	if c.i >= len(c.b) {
		return nil, errEnd
	}
	start := c.i
	var err error
	switch c.b[c.i] {
	case '"':
		_, _, err = c.str()
	case '{', '[':
		err = c.skipNested(depth + 1)
	case 't', 'f':
		_, err = c.boolean()
	case 'n':
		if !c.null() {
			err = c.unexpected("instead of a value")
		}
	default:
		_, _, err = c.number()
	}
	if err != nil {
		return nil, err
	}
	return c.b[start:c.i], nil
}

func (c *cursor) skipNested(depth int) error {
	if depth > maxDepth {
		return errors.New("JSON is nested too deeply")
	}
	object := c.b[c.i] == '{'
	closing := c.b[c.i] + 2 // in ASCII, each closing bracket is its opening bracket plus two
	c.i++
	for first := true; ; first = false {
		more, err := c.next(closing, first)
		if err != nil || !more {
			return err
		}
		if object {
			if _, err := c.key(); err != nil {
				return err
			}
		}
		if _, err := c.skip(depth); err != nil {
			return err
		}
	}
}

// expectEnd returns an error if anything but white space is left.
func (c *cursor) expectEnd() error {
	c.skipSpace()
	if c.i < len(c.b) {
		return c.unexpected("after the value")
	}
	return nil
}
