package gateway

import (
	"encoding/binary"
	"fmt"
)

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
