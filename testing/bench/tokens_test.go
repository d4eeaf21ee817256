package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestTokensHasARowAndABarForEachCase checks the form of a short measurement.
func TestTokensHasARowAndABarForEachCase(t *testing.T) {
	s, plot, err := Tokens(t.Context(), TokensOptions{Tokens: 20, Rounds: 2, Streams: 1, Log: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 7 || s.Rows[3][0] != "**go-rocm, TCP**" || len(s.Goals) != 4 {
		t.Errorf("%d goals, rows %q", len(s.Goals), s.Rows)
	}
	for _, row := range s.Rows {
		if len(row) != len(s.Head) || strings.HasPrefix(row[1], "-") {
			t.Errorf("row %q", row)
		}
	}
	bars := 0
	for d := xml.NewDecoder(strings.NewReader(plot)); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 8 {
		t.Errorf("%d rectangles, want the background and seven bars", bars)
	}
}
