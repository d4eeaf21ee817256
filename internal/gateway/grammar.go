package gateway

import (
	"errors"
	"fmt"
)

// A grammar of a request runs in llama-server's parser and, for every candidate
// of every token, in its sampler, on the one thread that serves all requests. So
// a grammar is parsed and tried here first, as llama-grammar.cpp (v0.5.0) would,
// and rejected where that takes too deep a recursion or too much work.
const (
	maxGrammar       = 256 << 10 // bytes
	maxGroups        = 100       // nesting of parentheses
	maxElements      = 200_000   // of all rules, repetitions expanded
	maxLeftDepth     = 1000      // rules that begin with one another
	maxLeftVisits    = 1 << 20   // steps of the search for left recursion
	maxStacks        = 4096      // ways in which a text can be read at once
	maxStackWork     = 4 << 20   // elements of stacks, over all steps tried
	grammarSteps     = 48        // characters tried
	grammarBranching = 24        // different characters tried at each step
)

var errGrammar = errors.New("grammar rejected")

// checkGrammarField accepts a string that checkGrammar accepts.
func checkGrammarField(v jsonValue) error {
	if !v.isString() {
		return errors.New("must be a string")
	}
	if len(v) > maxGrammar {
		return fmt.Errorf("must be shorter than %d bytes", maxGrammar)
	}
	return checkGrammar(v.text())
}

// checkGrammar reports why a GBNF grammar would cost llama-server too much. A
// grammar that it would not understand passes: llama-server answers with the
// place of the mistake.
func checkGrammar(source string) error {
	p := &grammarParser{src: source, ids: map[string]int{}}
	err := p.parse()
	switch {
	case errors.Is(err, errGrammar):
		return err
	case err != nil:
		return nil //nolint:nilerr // a mistake for llama-server to report
	}
	root, ok := p.ids["root"]
	if !ok {
		return nil
	}
	g := &grammar{rules: p.rules}
	if err := g.checkLeftRecursion(); err != nil {
		return err
	}
	return g.checkStacks(root)
}

// grammar has for each rule its alternates.
type grammar struct{ rules [][][]symbol }

// symbol is an element of an alternate: a reference to a rule, or a terminal.
type symbol struct {
	rule   int // -1 for a terminal
	ranges [][2]rune
	negate bool
}

func (s *symbol) matches(c rune) bool {
	for _, r := range s.ranges {
		if r[0] <= c && c <= r[1] {
			return !s.negate
		}
	}
	return s.negate
}

// checkLeftRecursion follows llama_grammar_detect_left_recursion, which recurses
// into every rule that another can begin with and visits a rule once for each way
// to it: their number doubles with each rule of the kind a ::= b | b.
func (g *grammar) checkLeftRecursion() error {
	visits := make([]float64, len(g.rules)) // 0: not known
	empty := make([]bool, len(g.rules))
	progress := make([]bool, len(g.rules))
	var visit func(rule, depth int) error
	visit = func(rule, depth int) error {
		switch {
		case progress[rule]:
			return fmt.Errorf("%w: a rule begins with itself, which llama.cpp does not support", errGrammar)
		case visits[rule] > 0:
			return nil
		case depth > maxLeftDepth:
			return fmt.Errorf("%w: more than %d rules begin with one another; simplify it", errGrammar, maxLeftDepth)
		}
		progress[rule] = true
		defer func() { progress[rule] = false }()
		for _, alternate := range g.rules[rule] {
			empty[rule] = empty[rule] || len(alternate) == 0
		}
		total := 1.0
		for _, alternate := range g.rules[rule] {
			for _, s := range alternate {
				if s.rule < 0 {
					break
				}
				if err := visit(s.rule, depth+1); err != nil {
					return err
				}
				total += visits[s.rule]
				if !empty[s.rule] {
					break
				}
			}
		}
		if visits[rule] = total; total > maxLeftVisits {
			return fmt.Errorf("%w: its rules begin with one another in too many ways; simplify it", errGrammar)
		}
		return nil
	}
	for rule := range g.rules {
		if err := visit(rule, 0); err != nil {
			return err
		}
	}
	return nil
}
