package llamaapi

import (
	"errors"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// cursor walks over JSON text without building anything. It accepts and refuses
// what encoding/json accepts and refuses; a fuzzer holds it to that.
type cursor struct {
	b []byte
	i int
}

// maxDepth is the nesting that encoding/json allows.
const maxDepth = 10000

var errEnd = errors.New("unexpected end of json")

func (c *cursor) unexpected(where string) error {
	if c.i >= len(c.b) {
		return errEnd
	}
	return fmt.Errorf("unexpected %q %s at byte %d", c.b[c.i], where, c.i)
}

func (c *cursor) ws() {
	for c.i < len(c.b) {
		switch c.b[c.i] {
		case ' ', '\t', '\n', '\r':
			c.i++
		default:
			return
		}
	}
}

// take moves over ch, with white space before it.
func (c *cursor) take(ch byte) bool {
	c.ws()
	if c.i < len(c.b) && c.b[c.i] == ch {
		c.i++
		return true
	}
	return false
}

// next says whether another member or element follows, given what closes the
// list and whether this is the first.
func (c *cursor) next(closing byte, first bool) (bool, error) {
	if c.take(closing) {
		return false, nil
	}
	if first {
		return true, nil
	}
	if !c.take(',') {
		return false, c.unexpected("where a comma should be")
	}
	return true, nil
}

// key moves over a member's name and colon. The name is as it stands in the
// text unless it has escapes.
func (c *cursor) key() ([]byte, error) {
	c.ws()
	raw, plain, err := c.str()
	if err != nil {
		return nil, err
	}
	if !c.take(':') {
		return nil, c.unexpected("where a colon should be")
	}
	if !plain {
		raw = unescape(nil, raw)
	}
	return raw, nil
}

// str moves over a string and returns what lies between the quotes. It is plain
// when it is its own value: no escapes and valid UTF-8.
func (c *cursor) str() (raw []byte, plain bool, err error) {
	if c.i >= len(c.b) || c.b[c.i] != '"' {
		return nil, false, c.unexpected("where a string should be")
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

// strEscaped goes on with str at the first backslash.
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
				return nil, false, c.unexpected("behind a backslash")
			}
		}
	}
	return nil, false, errEnd
}

func isHex(ch byte) bool {
	return ch >= '0' && ch <= '9' || ch >= 'a' && ch <= 'f' || ch >= 'A' && ch <= 'F'
}

// unescape appends the value of a string that str accepted: escapes resolved,
// halves of surrogate pairs and bytes that are no UTF-8 replaced by U+FFFD.
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

// null moves over null, if it stands here.
func (c *cursor) null() bool {
	c.ws()
	if len(c.b)-c.i >= 4 && string(c.b[c.i:c.i+4]) == "null" {
		c.i += 4
		return true
	}
	return false
}

// boolean reads true or false; null counts as false.
func (c *cursor) boolean() (bool, error) {
	c.ws()
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
	return false, c.unexpected("where true or false should be")
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

// skip moves over any value, which stands in depth lists and objects, and returns
// its text.
func (c *cursor) skip(depth int) ([]byte, error) {
	c.ws()
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
			err = c.unexpected("where a value should be")
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
		return errors.New("json is nested too deep")
	}
	object := c.b[c.i] == '{'
	closing := c.b[c.i] + 2 // ASCII puts both closing brackets two behind
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

// done fails if anything but white space is left.
func (c *cursor) done() error {
	c.ws()
	if c.i < len(c.b) {
		return c.unexpected("behind the value")
	}
	return nil
}
