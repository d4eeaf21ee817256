//go:build linux && amd64

package child

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestMain(m *testing.M) { os.Exit(fakebundle.Main(m.Run)) }

// input returns an input with a fake llama-server as a real child process.
func input(t *testing.T) Input { return scripted(t, fakellama.Script{NeverEnds: true}) }

func scripted(t *testing.T, script fakellama.Script) Input {
	path := fakebundle.Use(t, script)
	return Input{Bundle: os.Getenv("GOROCM_BUNDLE"), Real: Model{"real", path}, Tiny: Model{"tiny", path}, Rounds: 1, Log: io.Discard}
}

func check(t *testing.T, s page.Section, rows, goals int) {
	t.Helper()
	if len(s.Rows) != rows || len(s.Goals) != goals {
		t.Errorf("%d rows and %d goals, want %d and %d: %+v", len(s.Rows), len(s.Goals), rows, goals, s)
	}
	for _, row := range s.Rows {
		if len(row) != len(s.Head) {
			t.Errorf("row %q under %q", row, s.Head)
		}
	}
}

func TestReadyHasARowForEachBundle(t *testing.T) {
	in := input(t)
	s, err := Ready(t.Context(), in, in.Bundle)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 1, 1)
	if _, err := Ready(t.Context(), in, in.Bundle+"-none"); err == nil {
		t.Error("a missing bundle is measured")
	}
}

func TestFlowHasARowForEachLevel(t *testing.T) {
	in := input(t)
	s, points, err := Flow(t.Context(), in, []Level{{1, 5, 2}, {3, 4, 1}}, []Level{{2, 5, 1}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 6, 4)
	if len(points) != 6 || points[1].Streams != 3 || points[1].Transport != "unix socket" || points[5].Transport != "TCP" {
		t.Errorf("points %+v", points)
	}
	for _, p := range points {
		if p.Ours <= 0 || p.Raw <= 0 {
			t.Errorf("point %+v", p)
		}
	}
	dots, lines := 0, 0
	for d := xml.NewDecoder(strings.NewReader(Plot(points))); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok {
			switch e.Name.Local {
			case "circle":
				dots++
			case "polyline":
				lines++
			}
		}
	}
	if dots != 6 || lines != 4 {
		t.Errorf("%d dots and %d lines, want 6 and 4", dots, lines)
	}
}

func TestFirstTokenHasARowForEachTransport(t *testing.T) {
	s, err := FirstToken(t.Context(), input(t))
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 2, 2)
}

func TestCancelHasARowForEachClient(t *testing.T) {
	s, err := Cancel(t.Context(), scripted(t, fakellama.Script{NeverEnds: true, TokenDelay: 20 * time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 5, 2)
}

// Abandoning a stream that has ended is an error.
func TestAbandonTooLateFails(t *testing.T) {
	in := input(t)
	m, err := in.load(t.Context(), in.Real, 1, slotTokens, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	_, err = abandon(t.Context(), m, func(ctx context.Context) (opened, error) {
		return opened{close: func() error { return ours(ctx, m, slotTokens/2, nil) }}, nil
	})
	if err == nil || !strings.Contains(err.Error(), "before it was abandoned") {
		t.Errorf("a response that has ended: %v", err)
	}
}

func TestBatchHasTwoRows(t *testing.T) {
	s, err := Batch(t.Context(), input(t), 6, 3)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 2, 0)
}

func TestMemoryHasARowForEachClient(t *testing.T) {
	s, err := Memory(t.Context(), input(t), 4, 10)
	if err != nil {
		t.Fatal(err)
	}
	check(t, s, 5, 0)
}

// Both clients send the same request.
func TestRawReaderSendsTheSameRequest(t *testing.T) {
	in := input(t)
	m, err := in.load(t.Context(), in.Tiny, 1, slotTokens, "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	r, err := raw(t.Context(), m, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	theirs, err := record(r.hc, func() error { return r.read(t.Context(), nil) })
	if err != nil {
		t.Fatal(err)
	}
	mine, err := record(m.Server().Child.HTTPClient(), func() error { return ours(t.Context(), m, 7, nil) })
	if err != nil {
		t.Fatal(err)
	}
	if theirs.method != mine.method || theirs.path != mine.path || !bytes.Equal(theirs.body, mine.body) ||
		theirs.header.Get("Content-Type") != mine.header.Get("Content-Type") {
		t.Errorf("the peer sends\n%+v %s\nwe send\n%+v %s", theirs, theirs.body, mine, mine.body)
	}
	for _, want := range []string{`"n_predict":7`, `"temperature":0`, `"cache_prompt":false`, `"stream":true`, prompt} {
		if !strings.Contains(string(theirs.body), want) {
			t.Errorf("%s lacks %s", theirs.body, want)
		}
	}
	calls := 0
	if err := r.read(t.Context(), func() { calls++ }); err != nil || calls != 1 {
		t.Errorf("%v, first was called %d times", err, calls)
	}
	r.key = "wrong"
	if err := r.read(t.Context(), nil); err == nil {
		t.Error("a wrong key is accepted")
	}
}
