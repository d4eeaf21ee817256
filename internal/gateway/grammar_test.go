package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// chainGrammar returns rules a0 to aN. Each begins with the next one, in two alternates.
func chainGrammar(n int, rule string) string {
	var b strings.Builder
	b.WriteString("root ::= a0\n")
	for i := range n {
		b.WriteString(strings.NewReplacer("THIS", fmt.Sprintf("a%d", i), "NEXT", fmt.Sprintf("a%d", i+1)).Replace(rule) + "\n")
	}
	fmt.Fprintf(&b, "a%d ::= \"x\"\n", n)
	return b.String()
}

func TestRejectsCostlyGrammars(t *testing.T) {
	t.Parallel()
	for name, source := range map[string]string{
		"nested groups":         "root ::= " + strings.Repeat("(", 50000),
		"left recursion":        "root ::= root \"a\" | \"a\"",
		"hidden left recursion": "root ::= \"a\"? b\nb ::= root | \"b\"",
		"long chain":            chainGrammar(5000, "THIS ::= NEXT"),
		"exponential chain":     chainGrammar(40, "THIS ::= NEXT | NEXT"),
		"exponential stacks":    chainGrammar(40, `THIS ::= NEXT "a" | NEXT "b"`),
		"ambiguous":             `root ::= "a" root "b" | "a" root "c" | ""`,
		"ambiguous repetition":  `root ::= (("a" | "a" "a")* x)` + "\n" + `x ::= "a" x "b" | "a" x "c" | "d"`,
		"repetition of a text":  `root ::= "` + strings.Repeat("a", 200) + `"{1999}`,
		"many repetitions":      `root ::= "a"{100000}`,
	} {
		if err := checkGrammar(source); !errors.Is(err, errGrammar) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAcceptsOrdinaryGrammars(t *testing.T) {
	t.Parallel()
	alternatives := make([]string, 1000)
	for i := range alternatives {
		alternatives[i] = fmt.Sprintf("%q", fmt.Sprintf("city-%d", i))
	}
	for name, source := range map[string]string{
		"JSON": `root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws
object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws
array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws
string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
`,
		"chess": `root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
`,
		"arithmetic":   "root  ::= (expr \"=\" ws term \"\\n\")+\nexpr  ::= term ([-+*/] term)*\nterm  ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\nnum   ::= [0-9]+ ws\nws    ::= [ \\t\\n]*",
		"alternatives": "root ::= " + strings.Join(alternatives, " | "),
		"any text":     "root ::= .*",
		"limited text": "root ::= [^\\n]{1,500} \"\\n\"",
		"tokens":       "root ::= <think> !</think>* </think> .*",
		"empty":        "",
		"no root":      `a ::= "b"`,
		"mistake":      `root ::= "a`,
		"undefined":    `root ::= b`,
		"japanese":     "root ::= jp-char+\njp-char ::= hiragana | [ァ-ヿ]\nhiragana ::= [ぁ-ゟ]",
	} {
		if err := checkGrammar(source); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzGrammar(f *testing.F) {
	for _, s := range []string{`root ::= "a"{2,3} [^b-c]* (d | .)?` + "\nd ::= <x>", `root ::= "\x41`, "root ::= a\n#", `root ::= "a"{,}`} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, source string) {
		_ = checkGrammar(source) // must return without a panic
	})
}
