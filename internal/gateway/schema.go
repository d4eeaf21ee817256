package gateway

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// maxSchemaNodes bounds the schemas of a request together: each becomes
	// rules of a grammar, in which llama-server looks for every next token.
	maxSchemaNodes = 20000
	// maxSchemaDepth bounds their nesting, which json-schema-to-grammar.cpp and
	// the parser of the grammar follow by recursion.
	maxSchemaDepth = 100
	// maxPattern bounds a regular expression, which becomes rules as well.
	maxPattern = 1024
	// maxRepeat bounds counted repetitions, MAX_REPETITION_THRESHOLD in
	// llama-grammar.cpp.
	maxRepeat = 2000
)

// schemaBudget counts the nodes of all schemas of a request.
type schemaBudget struct{ nodes int }

// checkSchema accepts a JSON schema that llama-server can turn into a grammar.
func checkSchema(v jsonValue) error {
	var budget schemaBudget
	return budget.measure(v, 0)
}

// measure walks a schema. It does not interpret it: every object counts as one
// node, so that future keywords of llama-server are limited, too.
func (b *schemaBudget) measure(v jsonValue, depth int) error {
	if b.nodes++; b.nodes > maxSchemaNodes {
		return fmt.Errorf("has schemas of more than %d nodes; simplify them", maxSchemaNodes)
	}
	if depth > maxSchemaDepth {
		return fmt.Errorf("has a schema nested more than %d levels deep; nest it less", maxSchemaDepth)
	}
	for e := range v.elements() {
		if err := b.measure(e, depth+1); err != nil {
			return err
		}
	}
	for name, member := range v.members() {
		if err := checkKeyword(name, member); err != nil {
			return err
		}
		if err := b.measure(member, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// checkKeyword bounds the keywords that make a small schema a large grammar. A
// property of that name is an object and passes.
func checkKeyword(name string, v jsonValue) error {
	switch name {
	case "pattern":
		if v.isString() && len(v) > maxPattern {
			return fmt.Errorf("has a pattern longer than %d bytes; shorten it", maxPattern)
		}
		if v.isString() {
			return checkPattern(v.text())
		}
	case "minLength", "maxLength", "minItems", "maxItems":
		if v.isNumber() && v.number() > maxRepeat && strings.HasPrefix(name, "min") {
			return fmt.Errorf("has %s above %d; lower it", name, maxRepeat)
		}
	case "$ref":
		if v.isString() && !v.hasPrefix("#") {
			return errors.New("has a $ref to another document; write the schema inline")
		}
	}
	return nil
}

// checkPattern bounds the nesting and the repetitions of a regular expression.
func checkPattern(pattern string) error {
	depth, deepest, repeats := 0, 0, 0
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '\\':
			i++
		case '(':
			depth++
			deepest = max(deepest, depth)
		case ')':
			depth--
		case '{', '*', '+', '?':
			repeats++
		}
	}
	if deepest > 16 || repeats > 64 {
		return errors.New("has a pattern with too many groups or repetitions; simplify it")
	}
	return nil
}
