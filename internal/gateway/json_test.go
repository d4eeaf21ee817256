package gateway

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// decode returns the value that encoding/json would return.
func (v jsonValue) decode() any {
	switch {
	case v.isObject():
		out := map[string]any{}
		for name, member := range v.members() {
			out[name] = member.decode()
		}
		return out
	case v.isArray():
		out := []any{}
		for e := range v.elements() {
			out = append(out, e.decode())
		}
		return out
	case v.isString():
		return v.text()
	case v.isNumber():
		return v.number()
	case v.isBool():
		return v.kind() == 't'
	}
	return nil
}

// FuzzJSON compares the elements and members of a text with those of encoding/json.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		` { "a" : [ 1 , -2.5e3 , "\"\\" , { } , [ ] , null ] , "\u0062" : true , "a" : false } `, `"\\"`, `"x\\\""`, `[[["]"]]]`, `0`, `{"":""}`, `"é\ud800"`,
		"[\"\xff\"]", "{\"a\xc3\":1,\"a\xe2\x82\":2}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var want any
		err := json.Unmarshal(text, &want)
		v, parseErr := parseJSON(text)
		if parseErr != nil {
			if json.Valid(text) {
				t.Fatalf("%q: %v", text, parseErr)
			}
			return
		}
		if err != nil {
			return // the number overflows a float64
		}
		if got := v.decode(); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %#v, want %#v", text, got, want)
		}
		if v.isString() {
			for _, prefix := range []string{"http", "file:", "\\"} {
				if got, want := v.hasPrefix(prefix), strings.HasPrefix(v.text(), prefix); got != want {
					t.Errorf("%q has the prefix %q: %v, want %v", text, prefix, got, want)
				}
			}
		}
	})
}

func TestPrefixOfEscapedStrings(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		`"http://x"`: true, `"\u0068\u0074\u0074\u0070\u003a` + strings.Repeat("x", 100) + `"`: true, `"HTTP://x"`: false, `" http"`: false,
		`"` + strings.Repeat(`\\`, 100) + `"`: false, `"htt\n"`: false, `1`: false, `"h"`: false, `"\u0068ttp` + strings.Repeat(`\u0041`, 50) + `"`: true,
	} {
		if got := jsonValue(text).hasPrefix("http"); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}
