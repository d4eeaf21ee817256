package selftest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Answers compares a backend's greedy answers with the CPU's.
type Answers struct {
	Tokens int `json:"tokens"` // compared
	Equal  int `json:"equal"`
	// Ties are the tokens that differ, where the CPU's probabilities of the two are
	// almost equal.
	Ties int `json:"ties"`
	// Unknown are the tokens that differ, and whose probabilities llama-server does not
	// report: those that end within a character.
	Unknown int `json:"unknown,omitempty"`
	// Largest is the largest difference of the logarithms of the probabilities of equal
	// tokens.
	Largest float64 `json:"largest_difference"`
}

const (
	// answerLength is the number of tokens of each answer.
	answerLength = 16
	// candidates is the number of most likely tokens that are asked for.
	candidates = 10
	// tolerance is how much the logarithms of probabilities may differ. Backends round
	// differently: the CPU computes with eight bits where the weights are quantised.
	tolerance = 0.5
)

// promptLengths are the numbers of tokens of the prompts. Backends have different
// kernels for vectors, for small and for large matrices.
func promptLengths() []int { return []int{1, 8, 33, 512} }

// reference is a prompt with the CPU's answer.
type reference struct {
	prompt []int32
	answer llamaapi.Completion
}

// text is the beginning of every prompt.
const text = `A lighthouse stands on a rock far out at sea. Every evening its keeper climbs the
stairs, lights the lamp and writes the weather into a book. In winter the waves reach the
windows, and no boat comes for weeks; then he reads, repairs the clock and talks to the gulls.
In spring his sister brings flour, lamp oil and the letters of five months. `

// answers asks the prompts, and compares the answers with the CPU's. The CPU itself is
// asked twice.
func (s *session) answers(ctx context.Context) Result {
	const remedy = "do not use this backend: choose another one with --backend, and attach this report to an issue"
	if s.backend == plan.BackendCPU {
		if err := s.askReference(ctx); err != nil {
			return failed(remedyDoctor, "the CPU does not answer: %s", firstLine(err.Error()))
		}
	}
	if len(s.reference) == 0 {
		return notPossible("see the CPU's result", "there are no answers of the CPU to compare with")
	}
	var a Answers
	for _, ref := range s.reference {
		err := a.compare(ref.answer, func(at int) (llamaapi.Completion, error) {
			return s.complete(ctx, slices.Concat(ref.prompt, ref.answer.Tokens[:at]), len(ref.answer.Tokens)-at)
		})
		if err != nil {
			res := failed(remedy, "a prompt of %s: %s", count(len(ref.prompt), "token"), firstLine(err.Error()))
			res.Answers = &a
			return res
		}
	}
	if s.plan != nil && s.plan.GPU && !s.plan.Software() {
		s.report.CardTested = true
	}
	res := passed("%d of %d tokens are the CPU's, %d are almost as likely; the logarithms of the probabilities differ by %.3f at most", a.Equal, a.Tokens, a.Ties, a.Largest)
	if s.backend == plan.BackendCPU {
		res.Detail = fmt.Sprintf("it answers the same twice, %s", count(a.Tokens, "token"))
	}
	res.Answers = &a
	return res
}

// askReference sets the CPU's answers.
func (s *session) askReference(ctx context.Context) error {
	longest := slices.Max(promptLengths())
	tokens, err := s.model.API().Tokenize(ctx, strings.Repeat(text, longest/16), llamaapi.TokenizeOptions{AddSpecial: true})
	if err != nil {
		return err
	}
	for _, n := range promptLengths() {
		if len(tokens) < n {
			return fmt.Errorf("llama-server made %d tokens of the text; the test needs %d", len(tokens), longest)
		}
		answer, err := s.complete(ctx, tokens[:n], answerLength)
		switch {
		case err != nil:
			return err
		case len(answer.Positions) == 0:
			return errors.New("llama-server returned no tokens with probabilities; use a newer one")
		}
		s.reference = append(s.reference, reference{tokens[:n], answer})
	}
	return nil
}

// compare compares an answer with the CPU's. ask returns the backend's answer after the
// first tokens of the CPU's: where the two differ because two tokens are almost equally
// likely, the rest is compared all the same.
func (a *Answers) compare(want llamaapi.Completion, ask func(at int) (llamaapi.Completion, error)) error {
	wanted := positions(want)
	for at := 0; at < len(want.Tokens); {
		got, err := ask(at)
		if err != nil {
			return err
		}
		if len(got.Tokens) == 0 {
			return fmt.Errorf("no answer after %s", count(at, "token"))
		}
		for i, p := range positions(got) {
			if at == len(want.Tokens) {
				break
			}
			same, err := a.token(got.Tokens[i], p, want.Tokens[at], wanted[at], at+1)
			at++
			if err != nil {
				return err
			}
			if !same {
				break // the next tokens follow another one
			}
		}
	}
	return nil
}

// token compares one token, the number n. p and w are its candidates and those of the
// CPU, nil if they are not reported.
func (a *Answers) token(got int32, p *llamaapi.Position, want int32, w *llamaapi.Position, n int) (same bool, err error) {
	a.Tokens++
	switch {
	case got == want && (p == nil || w == nil):
		a.Equal++
		return true, nil
	case got == want:
		a.Equal++
		a.Largest = max(a.Largest, math.Abs(float64(p.LogProb-w.LogProb)))
		if a.Largest > tolerance {
			return true, fmt.Errorf("the logarithm of the probability of token %d is %.3f, the CPU's %.3f", n, p.LogProb, w.LogProb)
		}
		return true, nil
	case w == nil:
		a.Unknown++
		return false, nil
	}
	if gap := gapOf(*w, got); gap > tolerance {
		return false, fmt.Errorf("token %d differs from the CPU's, which finds it e^%.2f times less likely than its own", n, gap)
	}
	a.Ties++
	return false, nil
}

// positions returns the candidates of each token. llama-server reports none of a token
// that ends within a character (process_token in server-context.cpp).
func positions(c llamaapi.Completion) []*llamaapi.Position {
	out := make([]*llamaapi.Position, len(c.Tokens))
	next := 0
	for i, id := range c.Tokens {
		if next < len(c.Positions) && c.Positions[next].ID == id {
			out[i] = &c.Positions[next]
			next++
		}
	}
	return out
}

// gapOf returns how much less likely a token is than the one that was chosen, as the
// difference of the logarithms. A token that is not among the candidates is less likely
// than all of them.
func gapOf(p llamaapi.Position, id int32) float64 {
	for _, c := range p.Top {
		if c.ID == id {
			return float64(p.LogProb - c.LogProb)
		}
	}
	return math.Inf(1)
}
