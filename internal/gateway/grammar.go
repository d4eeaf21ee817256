package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
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

// grammarParser follows llama_grammar_parser.
type grammarParser struct {
	src      string
	pos      int
	ids      map[string]int
	rules    [][][]symbol
	elements int
	groups   int
}

var errSyntax = errors.New("syntax")

func (p *grammarParser) id(name string) int {
	id, ok := p.ids[name]
	if !ok {
		id = p.newRule()
		p.ids[name] = id
	}
	return id
}

func (p *grammarParser) newRule() int {
	p.rules = append(p.rules, nil)
	return len(p.rules) - 1
}

// grow counts elements.
func (p *grammarParser) grow(n int) error {
	if p.elements += n; p.elements > maxElements {
		return fmt.Errorf("%w: its rules and repetitions expand to more than %d elements; simplify it", errGrammar, maxElements)
	}
	return nil
}

func (p *grammarParser) peek() byte {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0
}

func (p *grammarParser) space(newlines bool) {
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '#':
			for p.pos < len(p.src) && p.src[p.pos] != '\r' && p.src[p.pos] != '\n' {
				p.pos++
			}
		case c == ' ' || c == '\t' || newlines && (c == '\r' || c == '\n'):
			p.pos++
		default:
			return
		}
	}
}

func isWordChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c >= '0' && c <= '9'
}

func (p *grammarParser) name() string {
	start := p.pos
	for isWordChar(p.peek()) {
		p.pos++
	}
	return p.src[start:p.pos]
}

func (p *grammarParser) parse() error {
	p.space(true)
	for p.pos < len(p.src) {
		name := p.name()
		p.space(false)
		if name == "" || !strings.HasPrefix(p.src[p.pos:], "::=") {
			return errSyntax
		}
		p.pos += len("::=")
		p.space(true)
		id := p.id(name)
		alternates, err := p.alternates(false)
		if err != nil {
			return err
		}
		p.rules[id] = alternates
		if c := p.peek(); c != 0 && c != '\r' && c != '\n' {
			return errSyntax
		}
		p.space(true)
	}
	for _, rule := range p.rules {
		if rule == nil {
			return errSyntax // not defined
		}
	}
	return nil
}

func (p *grammarParser) alternates(nested bool) ([][]symbol, error) {
	var out [][]symbol
	for {
		sequence, err := p.sequence(nested)
		if err != nil {
			return nil, err
		}
		if err := p.grow(1); err != nil {
			return nil, err
		}
		out = append(out, sequence)
		if p.peek() != '|' {
			return out, nil
		}
		p.pos++
		p.space(true)
	}
}

func (p *grammarParser) sequence(nested bool) ([]symbol, error) {
	var seq []symbol
	last := 0
	for p.pos < len(p.src) {
		before := len(seq)
		switch c := p.src[p.pos]; {
		case c == '"':
			p.pos++
			for p.peek() != '"' {
				r, err := p.char()
				if err != nil {
					return nil, err
				}
				seq = append(seq, symbol{rule: -1, ranges: [][2]rune{{r, r}}})
			}
			p.pos++
			last = before
		case c == '[':
			s, err := p.class()
			if err != nil {
				return nil, err
			}
			seq, last = append(seq, s), before
		case c == '.':
			p.pos++
			seq, last = append(seq, symbol{rule: -1, negate: true}), before
		case c == '<' || c == '!': // a token, which no character matches
			end := strings.IndexByte(p.src[p.pos:], '>')
			if end < 0 {
				return nil, errSyntax
			}
			p.pos += end + 1
			seq, last = append(seq, symbol{rule: -1}), before
		case c == '(':
			s, err := p.group()
			if err != nil {
				return nil, err
			}
			seq, last = append(seq, s), before
		case isWordChar(c):
			seq, last = append(seq, symbol{rule: p.id(p.name())}), before
		case strings.IndexByte("*+?{", c) >= 0:
			if last == len(seq) {
				return nil, errSyntax
			}
			low, high, err := p.bounds()
			if err != nil {
				return nil, err
			}
			if seq, err = p.repeat(seq, last, low, high); err != nil {
				return nil, err
			}
			before = len(seq)
		default:
			return seq, nil
		}
		p.space(nested)
		if err := p.grow(max(0, len(seq)-before)); err != nil {
			return nil, err
		}
	}
	return seq, nil
}

// group parses (…) into a rule of its own.
func (p *grammarParser) group() (symbol, error) {
	if p.groups++; p.groups > maxGroups {
		return symbol{}, fmt.Errorf("%w: its groups are nested more than %d deep; name the inner ones", errGrammar, maxGroups)
	}
	p.pos++
	p.space(true)
	id := p.newRule()
	alternates, err := p.alternates(true)
	if err != nil {
		return symbol{}, err
	}
	p.rules[id] = alternates
	if p.peek() != ')' {
		return symbol{}, errSyntax
	}
	p.pos++
	p.groups--
	return symbol{rule: id}, nil
}

// bounds parses * + ? {m} {m,} {m,n}; high is -1 where there is none.
func (p *grammarParser) bounds() (low, high int, err error) {
	c := p.src[p.pos]
	p.pos++
	switch c {
	case '*':
		return 0, -1, nil
	case '+':
		return 1, -1, nil
	case '?':
		return 0, 1, nil
	}
	integer := func() int {
		n, digits := 0, 0
		for ; p.peek() >= '0' && p.peek() <= '9'; p.pos++ {
			n = min(n*10+int(p.peek()-'0'), math.MaxInt32)
			digits++
		}
		if digits == 0 {
			return -1
		}
		return n
	}
	p.space(true)
	if low = integer(); low < 0 {
		return 0, 0, errSyntax
	}
	high = low
	p.space(true)
	if p.peek() == ',' {
		p.pos++
		p.space(true)
		high = integer()
		p.space(true)
	}
	if p.peek() != '}' || high >= 0 && high < low {
		return 0, 0, errSyntax
	}
	p.pos++
	if low > maxRepeat {
		return 0, 0, fmt.Errorf("%w: it repeats more than %d times", errGrammar, maxRepeat)
	}
	if high > maxRepeat {
		high = -1
	}
	return low, high, nil
}

// repeat expands the elements from last on, with rules for optional repetitions,
// as handle_repetitions does.
func (p *grammarParser) repeat(seq []symbol, last, low, high int) ([]symbol, error) {
	item := append([]symbol(nil), seq[last:]...)
	optional := 1
	if high >= 0 {
		optional = high - low
	}
	if err := p.grow((low + optional) * (len(item) + 2)); err != nil {
		return nil, err
	}
	seq = seq[:last]
	for range low {
		seq = append(seq, item...)
	}
	rule := -1
	for range optional {
		id := p.newRule()
		next := append([]symbol(nil), item...)
		switch {
		case high < 0:
			next = append(next, symbol{rule: id})
		case rule >= 0:
			next = append(next, symbol{rule: rule})
		}
		p.rules[id] = [][]symbol{next, nil}
		rule = id
	}
	if rule >= 0 {
		seq = append(seq, symbol{rule: rule})
	}
	return seq, nil
}

// class parses […].
func (p *grammarParser) class() (symbol, error) {
	s := symbol{rule: -1}
	p.pos++
	if p.peek() == '^' {
		p.pos++
		s.negate = true
	}
	for p.peek() != ']' {
		low, err := p.char()
		if err != nil {
			return s, err
		}
		high := low
		if p.peek() == '-' && p.pos+1 < len(p.src) && p.src[p.pos+1] != ']' {
			p.pos++
			if high, err = p.char(); err != nil {
				return s, err
			}
		}
		s.ranges = append(s.ranges, [2]rune{low, high})
		if err := p.grow(1); err != nil {
			return s, err
		}
	}
	p.pos++
	return s, nil
}

// char parses a character of a literal or class.
func (p *grammarParser) char() (rune, error) {
	if p.pos >= len(p.src) {
		return 0, errSyntax
	}
	if p.src[p.pos] != '\\' {
		r, size := utf8.DecodeRuneInString(p.src[p.pos:])
		p.pos += size
		return r, nil
	}
	p.pos++
	c := p.peek()
	p.pos++
	digits := map[byte]int{'x': 2, 'u': 4, 'U': 8}[c]
	if digits == 0 {
		switch c {
		case 't':
			return '\t', nil
		case 'r':
			return '\r', nil
		case 'n':
			return '\n', nil
		case '\\', '"', '[', ']':
			return rune(c), nil
		}
		return 0, errSyntax
	}
	var r rune
	for range digits {
		d := strings.IndexByte("0123456789abcdef", p.peek()|0x20)
		if d < 0 {
			return 0, errSyntax
		}
		r = r<<4 | rune(d) //nolint:gosec // a hexadecimal digit
		p.pos++
	}
	return r, nil
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
