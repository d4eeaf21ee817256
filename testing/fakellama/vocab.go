package fakellama

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// The vocabulary: three special tokens, the 256 bytes, and words.
const (
	TokenEnd     int32 = 0 // end of text
	TokenTurn    int32 = 1 // begin of a chat turn
	TokenTurnEnd int32 = 2 // end of a chat turn, which also ends a generation
	firstByte    int32 = 3
	firstWord    int32 = firstByte + 256
)

func specials() []string { return []string{"<|endoftext|>", "<|im_start|>", "<|im_end|>"} }

// words are tokens of more than one byte. The last ones are beginnings of runes:
// with them an emoji is three tokens and an ideograph two.
func words() []string {
	return []string{
		" the", " a", " of", " and", " to", " in", " is", " was", " it", " that", " for", " on", " with", " as",
		" his", " her", " they", " at", " be", " this", " from", " have", " or", " by", " one", " had", " not",
		" but", " what", " all", " were", " when", " we", " there", " can", " said", " sea", " tree", " light",
		" stone", " river", " house", " small", " green", " old", " slow", " bird", " song", "The", "It", "ing",
		"ed", "er", "ly", ", ", ". ", "!\n", "\n\n", "system", "user", "assistant", "\xf0\x9f", "\xe4\xb8", "\xc3",
	}
}

// VocabSize is the number of tokens.
func VocabSize() int { return int(firstWord) + len(words()) }

// vocab maps tokens to text and text to tokens.
type vocab struct {
	pieces  []string
	byText  map[string]int32
	longest int
}

func newVocab() *vocab {
	v := &vocab{byText: map[string]int32{}}
	v.pieces = append(v.pieces, specials()...)
	for b := range 256 {
		v.pieces = append(v.pieces, string([]byte{byte(b)}))
	}
	v.pieces = append(v.pieces, words()...)
	for id, p := range v.pieces {
		v.byText[p] = int32(id)
		v.longest = max(v.longest, len(p))
	}
	return v
}

// tokenize uses the longest matching token at each position. It recognises special
// tokens only if parse is set.
func (v *vocab) tokenize(text string, parse bool) []int32 {
	ids := []int32{}
	for text != "" {
		n := min(v.longest, len(text))
		for ; n > 0; n-- {
			if id, ok := v.byText[text[:n]]; ok && (parse || id >= firstByte) {
				ids = append(ids, id)
				break
			}
		}
		text = text[n:]
	}
	return ids
}

func (v *vocab) known(id int32) bool { return id >= 0 && int(id) < len(v.pieces) }

func ends(id int32) bool { return id == TokenEnd || id == TokenTurnEnd }

// piece returns the text of a token; special tokens have none.
func (v *vocab) piece(id int32) string {
	if id < firstByte {
		return ""
	}
	return v.pieces[id]
}

// biased returns the token that replaces the likely one: the first token of a text
// whose logit is raised above all candidates. It supports the form of logit_bias
// with pairs of a text and a number.
func (v *vocab) biased(likely int32, logitBias json.RawMessage) int32 {
	var pairs [][2]any
	if json.Unmarshal(logitBias, &pairs) != nil {
		return likely
	}
	for _, pair := range pairs {
		text, isText := pair[0].(string)
		raise, isNumber := pair[1].(float64)
		if ids := v.tokenize(text, false); isText && isNumber && raise >= 1000 && len(ids) > 0 {
			return ids[0]
		}
	}
	return likely
}

// text returns the text of tokens, including special tokens.
func (v *vocab) text(ids []int32) string {
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(v.pieces[id])
	}
	return b.String()
}

// incomplete reports whether text ends inside a rune, as validate_utf8 in
// llama.cpp's common.cpp does: it checks only the last three bytes.
func incomplete(text string) bool {
	for back := 1; back <= 3 && back <= len(text); back++ {
		ch := text[len(text)-back]
		if utf8.RuneStart(ch) {
			need := 1
			switch {
			case ch >= 0xf0:
				need = 4
			case ch >= 0xe0:
				need = 3
			case ch >= 0xc0:
				need = 2
			}
			return need > back
		}
	}
	return false
}

// sampler is the "model": a sequence of tokens that depends on the prompt, and on
// the seed if there is one.
type sampler struct {
	v     *vocab
	state uint64
	plan  []int32 // tokens already decided on
	ends  bool    // may end by itself
	count int
}

// newSampler returns a sampler of generated text, or of reply if it is not empty.
func newSampler(v *vocab, prompt []int32, seed uint64, reply string, neverEnds bool) *sampler {
	s := &sampler{v: v, state: 0xcbf29ce484222325 ^ seed, ends: !neverEnds}
	for _, id := range prompt {
		s.state = (s.state ^ uint64(id)) * 0x100000001b3
	}
	if reply != "" {
		s.plan = append(v.tokenize(reply, false), TokenEnd)
		if neverEnds {
			s.plan = s.plan[:len(s.plan)-1]
		}
	}
	return s
}

// random returns the next number of splitmix64.
func (s *sampler) random() uint64 {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (s *sampler) next() int32 {
	s.count++
	if len(s.plan) == 0 {
		r := s.random()
		switch kind := r % 64; {
		case kind == 0 && s.ends && s.count > 4:
			s.plan = []int32{TokenEnd}
		case kind < 4: // an emoji, U+1F600 and on
			s.plan = s.spell(string(rune(0x1f600 + int(r>>8%64))))
		case kind < 6:
			s.plan = s.spell("世")
		case kind < 8:
			s.plan = s.spell(" caf\u00e9")
		default:
			n := uint64(len(s.v.pieces)-3) - uint64(firstWord)
			s.plan = []int32{firstWord + int32((r>>8)%n)}
		}
	}
	id := s.plan[0]
	s.plan = slices.Delete(s.plan, 0, 1)
	return id
}

func (s *sampler) spell(text string) []int32 { return s.v.tokenize(text, false) }

// candidates returns n tokens with falling log-probabilities, the sampled one
// first.
func (s *sampler) candidates(id int32, n int) []candidate {
	n = min(n, len(s.v.pieces))
	out := make([]candidate, 0, n)
	for i := 0; len(out) < n; i++ {
		// Wrapping around from the sampled token visits each token once.
		at := (int(id) + i) % len(s.v.pieces)
		out = append(out, candidate{int32(at), -0.5 - float32(i)*0.125})
	}
	return out
}

type candidate struct {
	id      int32
	logprob float32
}
