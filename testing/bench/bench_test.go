package bench

import (
	"strings"
	"testing"
)

// tokens is the length of a stream in the project's goals.
const tokens = 5000

func start(tb testing.TB, n int) *Server {
	tb.Helper()
	s, err := NewServer(n)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

// TestCasesAgree checks that all cases read the same text, so that the comparison is
// fair.
func TestCasesAgree(t *testing.T) {
	const n = 200
	s, want := start(t, n), Text(n)
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			read := c.Open(s)
			for range 2 {
				var b strings.Builder
				count := 0
				if err := read(t.Context(), func(text string) { b.WriteString(text); count++ }); err != nil {
					t.Fatal(err)
				}
				if c.Text && (count != n || b.String() != want) {
					t.Errorf("%d tokens, %.80q", count, b.String())
				}
			}
		})
	}
}

func BenchmarkStream(b *testing.B) {
	s := start(b, tokens)
	for _, c := range Cases() {
		b.Run(c.Name, func(b *testing.B) { Measure(b, s, c, tokens) })
	}
}
