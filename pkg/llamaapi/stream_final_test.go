package llamaapi

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

// split returns the tokens of the runes in the tests below: two for each rune, with the
// same last token.
func split() map[string]string {
	return map[string]string{
		"é": `{"tokens":[{"id":20,"piece":[195]},{"id":8,"piece":[169]}]}`,
		"ü": `{"tokens":[{"id":21,"piece":[195]},{"id":8,"piece":[188]}]}`,
	}
}

// TestHeldBackRune checks that the ids of a rune that is held back are returned only if the
// stop strings determine the rune.
func TestHeldBackRune(t *testing.T) {
	for _, tc := range []struct {
		name string
		stop []string
		want []Token
		lost int
	}{
		{"one stop text", []string{"é!"}, []Token{{20, ""}, {8, ""}, {9, "é?"}}, 0},
		{"two that begin alike", []string{"é!", "é."}, []Token{{20, ""}, {8, ""}, {9, "é?"}}, 0},
		{"two that do not", []string{"é!", "ü!"}, []Token{{8, ""}, {9, "é?"}}, 1},
		{"none with a rune", []string{"e!"}, []Token{{8, ""}, {9, "é?"}}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := request()
			req.Stop = tc.stop
			got, s := drain(t, replay(t, []byte(ev(2, 8, "")+ev(3, 9, "é?")+fin(3, "limit")), split()), req)
			if s.Err() != nil || !slices.Equal(got, tc.want) || s.Final().LostTokens != tc.lost {
				t.Errorf("%v, %v, %d lost; want %v and %d", got, s.Err(), s.Final().LostTokens, tc.want, tc.lost)
			}
		})
	}
}

func TestMatchPieces(t *testing.T) {
	lead, tail := Piece{20, []byte{0xc3}}, Piece{8, []byte{0xa9}}
	for name, tc := range map[string]struct {
		pieces []Piece
		text   string
		want   []int32
	}{
		"as the stream":         {[]Piece{lead, tail}, "é", []int32{20}},
		"a blank before":        {[]Piece{{19, []byte(" ")}, lead, tail}, "é", []int32{20}},
		"held-back text before": {[]Piece{{30, []byte("x")}, lead, tail}, "xé", []int32{20}},
		"other bytes":           {[]Piece{{21, []byte{0xc4}}, tail}, "é", nil},
		"another last":          {[]Piece{lead, {9, []byte{0xa9}}}, "é", nil},
		"too few":               {[]Piece{tail}, "é", nil},
		"none":                  {nil, "é", nil},
	} {
		if got := matchPieces(tc.pieces, tc.text, 8, 1); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// TestStreamEventTooLarge checks that an event over the limit is not reported as a broken
// connection, which would be worth a retry.
func TestStreamEventTooLarge(t *testing.T) {
	c := replay(t, []byte(ev(1, 5, "a")+ev(2, 6, strings.Repeat("b", 1000))), nil)
	c.maxEvent = 500
	got, s := drain(t, c, request())
	if !errors.Is(s.Err(), ErrEventTooLarge) || errors.Is(s.Err(), ErrTruncated) || len(got) != 1 {
		t.Errorf("%v, %v", got, s.Err())
	}
}

// TestFinalHasTheStopToken checks both ways to obtain the stop token's id.
func TestFinalHasTheStopToken(t *testing.T) {
	req := request()
	req.StopIDs = []int32{9, 6}
	_, s := drain(t, replay(t, []byte(ev(1, 5, "a")+ev(2, 6, "b")), nil), req)
	if f := s.Final(); s.Err() != nil || f.Reason != StopID || f.StopToken != 6 || f.PredictedTokens != 2 || f.PromptTokens != 3 {
		t.Errorf("stream: %+v, %v", f, s.Err())
	}
	whole, err := replay(t, []byte(`{"content":"ab","tokens":[5,6],"stop":true,"stop_type":"limit","tokens_predicted":2}`), nil).Complete(t.Context(), req)
	if err != nil || whole[0].Reason != StopID || whole[0].StopToken != 6 || !slices.Equal(whole[0].Tokens, []int32{5}) {
		t.Errorf("whole: %+v, %v", whole, err)
	}
}

// TestFinalBeforeTheEnd checks the counts while a stream runs and after it was broken.
func TestFinalBeforeTheEnd(t *testing.T) {
	s, err := replay(t, []byte(ev(1, 5, "a")+ev(2, 6, "b")), nil).Completion(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; s.Next(); n++ {
		if f := s.Final(); f.Reason != StopNone || f.PredictedTokens != n || f.PromptTokens != 3 {
			t.Errorf("after %d tokens: %+v", n, f)
		}
	}
	if f := s.Final(); !errors.Is(s.Err(), ErrTruncated) || f.Reason != StopNone || f.PredictedTokens != 2 || f.PromptTokens != 3 {
		t.Errorf("%v: %+v", s.Err(), f)
	}
}

// TestNoTokensAfterClose reads one of several tokens of an event: after Close, the stream
// returns none of the others.
func TestNoTokensAfterClose(t *testing.T) {
	for name, want := range map[string]error{"closed": ErrClosed, "cancelled": context.Canceled} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s, err := replay(t, []byte(ev(2, 8, "é")+fin(2, "limit")), split()).Completion(ctx, request())
			if err != nil {
				t.Fatal(err)
			}
			if !s.Next() || s.Token().ID != 20 {
				t.Fatal(s.Token(), s.Err())
			}
			if errors.Is(want, ErrClosed) {
				closeQuietly(s)
			} else {
				cancel()
			}
			if s.Next() || !errors.Is(s.Err(), want) {
				t.Errorf("%v came, %v; want %v", s.Token(), s.Err(), want)
			}
		})
	}
}

// TestPingsUseNoBuffer checks that pings are not kept in memory: a server may send them
// for as long as it processes a prompt.
func TestPingsUseNoBuffer(t *testing.T) {
	for name, line := range map[string]string{"pings": ":\n\n", "comments": ": x\n", "blank lines": "\n", "other fields": "id: 5\n"} {
		s := newSSEReader(strings.NewReader(strings.Repeat(line, 4*sseBufSize)+"data: ok\n\n"), 2*sseBufSize)
		data, err := s.next()
		if err != nil || string(data) != "ok" || len(s.buf) != sseBufSize {
			t.Errorf("%s: %q, %v, buffer of %d", name, data, err, len(s.buf))
		}
	}
}
