package gateway

import (
	"errors"
	"fmt"
)

// prompt accepts the shapes of tokenize_input_prompts in server-common.cpp: a
// string, tokens and strings mixed, an object with media, or an array of them.
func prompt(v jsonValue) error {
	switch {
	case v.isString():
		return nil
	case v.isObject():
		return mediaPrompt(v)
	case !v.isArray():
		return errors.New("must be a string, an array, or an object with prompt_string")
	}
	prompts, tokens := 0, false
	for e := range v.elements() {
		switch {
		case e.isNumber():
			tokens = true
			if err := integer(-1, int32Max)(e); err != nil {
				return err
			}
			continue
		case e.isArray():
			for token := range e.elements() {
				if !token.isNumber() && !token.isString() {
					return errors.New("must hold tokens and strings")
				}
			}
		case e.isObject():
			if err := mediaPrompt(e); err != nil {
				return err
			}
		case !e.isString():
			return errors.New("must hold strings, tokens, arrays of them, or objects with prompt_string")
		}
		if prompts++; prompts > maxPrompts && !tokens {
			return fmt.Errorf("must hold at most %d prompts", maxPrompts)
		}
	}
	return nil
}

// countPrompts returns how many prompts a value has that prompt accepts.
func countPrompts(v jsonValue) int64 {
	n := int64(0)
	for e := range v.elements() {
		if e.isNumber() {
			return 1 // tokens, and strings among them
		}
		n++
	}
	return max(n, 1)
}

func mediaPrompt(v jsonValue) error {
	return object(fields{"prompt_string": text(maxBody), "multimodal_data": list(256, text(maxBody))})(v)
}
