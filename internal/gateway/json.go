package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"unicode/utf8"
)

// jsonValue is one value of a text that json.Valid accepts, without the space around it. Its
// iterators decode only the requested parts: a body consists mostly of long strings, which
// bytes.IndexByte skips.
type jsonValue []byte

// parseJSON returns the value of a whole text.
func parseJSON(text []byte) (jsonValue, error) {
	if !json.Valid(text) {
		var v any
		return nil, fmt.Errorf("%w: %w", errNotJSON, json.Unmarshal(text, &v))
	}
	return jsonValue(bytes.Trim(text, " \t\r\n")), nil
}

// kind returns the first byte: { [ " t f n, a digit or a minus.
func (v jsonValue) kind() byte { return v[0] }

func (v jsonValue) isObject() bool { return v[0] == '{' }
func (v jsonValue) isArray() bool  { return v[0] == '[' }
func (v jsonValue) isString() bool { return v[0] == '"' }
func (v jsonValue) isNull() bool   { return v[0] == 'n' }
func (v jsonValue) isBool() bool   { return v[0] == 't' || v[0] == 'f' }
func (v jsonValue) isNumber() bool { return v[0] == '-' || v[0] >= '0' && v[0] <= '9' }

// text returns a string, "" for other values. Bytes that are not UTF-8 become
// U+FFFD, as in encoding/json.
func (v jsonValue) text() string {
	if !v.isString() {
		return ""
	}
	if inner := v[1 : len(v)-1]; bytes.IndexByte(inner, '\\') < 0 && utf8.Valid(inner) {
		return string(inner)
	}
	var s string
	_ = json.Unmarshal(v, &s) // valid, so it cannot fail
	return s
}

// hasPrefix reports whether v is a string that begins with an ASCII prefix. It
// decodes no more of a long string than it needs.
func (v jsonValue) hasPrefix(prefix string) bool {
	if !v.isString() {
		return false
	}
	rest := v[1 : len(v)-1]
	for i := range len(prefix) {
		if len(rest) == 0 {
			return false
		}
		c, size := rest[0], 1
		if c == '\\' {
			switch size = 2; rest[1] {
			case 'u':
				code, err := strconv.ParseUint(string(rest[2:6]), 16, 16)
				if err != nil || code > 0x7f {
					return false
				}
				c, size = byte(code), 6
			case '"', '\\', '/':
				c = rest[1]
			default:
				return false // a control character
			}
		}
		if c != prefix[i] {
			return false
		}
		rest = rest[size:]
	}
	return true
}

// number returns a number.
func (v jsonValue) number() float64 {
	n, _ := strconv.ParseFloat(string(v), 64) // ±Inf out of range
	return n
}

// elements yields the elements of an array, none for other values.
func (v jsonValue) elements() iter.Seq[jsonValue] {
	return func(yield func(jsonValue) bool) {
		if !v.isArray() {
			return
		}
		for i := skipSpace(v, 1); v[i] != ']'; {
			end := skipValue(v, i)
			if !yield(v[i:end]) {
				return
			}
			if i = skipSpace(v, end); v[i] == ',' {
				i = skipSpace(v, i+1)
			}
		}
	}
}

// rawMembers yields the members of an object as (name in quotes, value), none for
// other values.
func (v jsonValue) rawMembers() iter.Seq2[jsonValue, jsonValue] {
	return func(yield func(jsonValue, jsonValue) bool) {
		if !v.isObject() {
			return
		}
		for i := skipSpace(v, 1); v[i] != '}'; {
			end := skipValue(v, i)
			name := v[i:end]
			i = skipSpace(v, end) // the colon
			i = skipSpace(v, i+1) // the value
			end = skipValue(v, i)
			if !yield(name, v[i:end]) {
				return
			}
			if i = skipSpace(v, end); v[i] == ',' {
				i = skipSpace(v, i+1)
			}
		}
	}
}

// members yields the members of an object.
func (v jsonValue) members() iter.Seq2[string, jsonValue] {
	return func(yield func(string, jsonValue) bool) {
		for name, value := range v.rawMembers() {
			if !yield(name.text(), value) {
				return
			}
		}
	}
}

// errDuplicate rejects an object with two members of one name: which of them
// counts differs between parsers.
var errDuplicate = errors.New("the JSON has two members of the same name")

// get returns the member of that name, nil if there is none.
func (v jsonValue) get(name string) (jsonValue, error) {
	var found jsonValue
	for n, member := range v.members() {
		if n != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("%w: %q", errDuplicate, name)
		}
		found = member
	}
	return found, nil
}

func skipSpace(v jsonValue, i int) int {
	for v[i] == ' ' || v[i] == '\t' || v[i] == '\r' || v[i] == '\n' {
		i++
	}
	return i
}

// skipValue returns the index behind the value that begins at i.
func skipValue(v jsonValue, i int) int {
	switch v[i] {
	case '"':
		return skipString(v, i)
	case '{', '[':
		for depth := 0; ; {
			switch v[i] {
			case '"':
				i = skipString(v, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			i++
			if depth == 0 {
				return i
			}
		}
	}
	for i < len(v) && bytes.IndexByte([]byte(",]} \t\r\n:"), v[i]) < 0 {
		i++
	}
	return i
}

// skipString returns the index behind the string that begins at i.
func skipString(v jsonValue, i int) int {
	for i++; ; i++ {
		i += bytes.IndexByte(v[i:], '"')
		escapes := 0
		for v[i-1-escapes] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return i + 1
		}
	}
}
