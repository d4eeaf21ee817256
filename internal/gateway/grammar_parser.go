package gateway

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"
)

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
