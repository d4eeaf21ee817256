package gateway

import (
	"encoding/binary"
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

// position is the place of an element: rule, alternate, index.
type position struct{ rule, alternate, index int32 }

// stack is one way to read what has been read so far; the last element is next.
type stack []position

func (g *grammar) symbol(p position) *symbol { return &g.rules[p.rule][p.alternate][p.index] }

// behind returns s without its last element, and with the element that follows
// it, if any does.
func (g *grammar) behind(s stack) stack {
	p := s[len(s)-1]
	next := append(stack(nil), s[:len(s)-1]...)
	if p.index++; int(p.index) < len(g.rules[p.rule][p.alternate]) {
		next = append(next, p)
	}
	return next
}

// stackSet are different stacks, each with a terminal next, and what they cost.
type stackSet struct {
	g      *grammar
	stacks []stack
	done   map[string]bool
	work   *int
}

// key returns a string that no other stack has.
func (s stack) key() string {
	b := make([]byte, 0, 12*len(s))
	for _, p := range s {
		for _, n := range []int32{p.rule, p.alternate, p.index} {
			b = binary.LittleEndian.AppendUint32(b, uint32(n)) //nolint:gosec // never negative
		}
	}
	return string(b)
}

// add expands a stack until a terminal is next, as llama_grammar_advance_stack.
func (set *stackSet) add(s stack) error {
	todo := []stack{s}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		k := s.key()
		if set.done[k] {
			continue
		}
		set.done[k] = true
		if *set.work += len(s) + 1; *set.work > maxStackWork || len(set.stacks) > maxStacks {
			return fmt.Errorf("%w: the same text can be read in too many ways; make its alternatives begin differently", errGrammar)
		}
		if len(s) == 0 || set.g.symbol(s[len(s)-1]).rule < 0 {
			set.stacks = append(set.stacks, s)
			continue
		}
		rule := set.g.symbol(s[len(s)-1]).rule
		rest := set.g.behind(s)
		for i, alternate := range set.g.rules[rule] {
			next := append(stack(nil), rest...)
			if len(alternate) > 0 {
				next = append(next, position{int32(rule), int32(i), 0}) //nolint:gosec // bounded by maxElements
			}
			todo = append(todo, next)
		}
	}
	return nil
}

// checkStacks reads characters with the grammar, each the one that leaves the most
// ways to read on, and rejects it where their number grows beyond maxStacks: an
// ambiguous grammar doubles it with each character.
func (g *grammar) checkStacks(root int) error {
	work := 0
	set := &stackSet{g: g, done: map[string]bool{}, work: &work}
	for i, alternate := range g.rules[root] {
		var s stack
		if len(alternate) > 0 {
			s = stack{{int32(root), int32(i), 0}} //nolint:gosec // bounded by maxElements
		}
		if err := set.add(s); err != nil {
			return err
		}
	}
	for range grammarSteps {
		var best *stackSet
		for _, c := range set.characters() {
			next := &stackSet{g: g, done: map[string]bool{}, work: &work}
			for _, s := range set.stacks {
				if len(s) == 0 || !g.symbol(s[len(s)-1]).matches(c) {
					continue
				}
				if err := next.add(g.behind(s)); err != nil {
					return err
				}
			}
			if best == nil || len(next.stacks) > len(best.stacks) {
				best = next
			}
		}
		if best == nil || len(best.stacks) == 0 {
			return nil
		}
		// A grammar that cannot branch is not worth the steps.
		if set = best; work > maxStackWork/2 && len(set.stacks) < maxStacks/64 {
			return nil
		}
	}
	return nil
}

// characters returns some that the next terminals distinguish.
func (set *stackSet) characters() []rune {
	var out []rune
	seen := map[rune]bool{}
	for _, s := range set.stacks {
		if len(s) == 0 {
			continue
		}
		symbol := set.g.symbol(s[len(s)-1])
		candidates := []rune{'a'}
		if !symbol.negate {
			candidates = candidates[:0]
			for _, r := range symbol.ranges {
				candidates = append(candidates, r[0])
			}
		}
		for _, c := range candidates {
			if !seen[c] {
				seen[c] = true
				out = append(out, c)
			}
			if len(out) == grammarBranching {
				return out
			}
		}
	}
	return out
}
