package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"forge.lthn.ai/core/go-rocm/internal/activity"
)

// topInterval is the time between two frames.
const topInterval = time.Second

func topCommand() *cobra.Command {
	var r remote
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "watch the cards, models and requests of a running service",
		Long: `Shows what a running service does, once a second: the memory, temperature and power
of the cards, the states of the models, the requests that run, and the last ones with
their tokens and how they ended. With an API key that has limits, it shows the requests
of that key only, and no cards. Control-C ends it.

If the output is no terminal, each frame is plain text.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := r.top(cmd, once); err != nil {
				return fmt.Errorf("top: %w", err)
			}
			return nil
		},
	}
	r.register(cmd.Flags())
	cmd.Flags().BoolVar(&once, "once", false, "print the state once and exit")
	return cmd
}

// topState is what a frame shows.
type topState struct {
	mu       sync.Mutex
	models   []remoteModel
	requests map[uint64]activity.Record
	sample   activity.Sample
	capture  int
	failure  error // why the service does not answer, nil: it does
}

// topRequests limits how many ended requests are kept.
const topRequests = 200

// refresh asks for everything.
func (s *topState) refresh(ctx context.Context, r *remote) error {
	var a struct {
		activity.Snapshot
		Capture int               `json:"capture"`
		Samples []activity.Sample `json:"samples"`
	}
	raw, err := r.call(ctx, http.MethodGet, "/activity", nil)
	if err == nil {
		err = json.Unmarshal(raw, &a)
	}
	if err != nil {
		return err
	}
	models, err := r.models(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.models, s.capture, s.requests = models, a.Capture, map[uint64]activity.Record{}
	for _, record := range append(a.Running, a.Recent...) {
		s.requests[record.Seq] = record
	}
	if n := len(a.Samples); n > 0 {
		s.sample = a.Samples[n-1]
	}
	return nil
}

// follow reads the stream of events until it ends. The stream begins before refresh,
// so that no change is missed between the two.
func (s *topState) follow(ctx context.Context, r *remote) error {
	stream, err := r.open(ctx, http.MethodGet, "/activity/sse", nil)
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	if err := s.refresh(ctx, r); err != nil {
		return err
	}
	s.setFailure(nil)
	lines := bufio.NewScanner(stream)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var event struct {
			Request *activity.Record `json:"request"`
			Sample  *activity.Sample `json:"sample"`
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			return err
		}
		s.apply(event.Request, event.Sample)
	}
	return cmp.Or(lines.Err(), io.ErrUnexpectedEOF)
}

func (s *topState) apply(r *activity.Record, sample *activity.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sample != nil {
		s.sample = *sample
	}
	if r == nil {
		return
	}
	s.requests[r.Seq] = *r
	if len(s.requests) <= 2*topRequests {
		return
	}
	ended := s.sorted(func(r activity.Record) bool { return r.Stage == activity.Done })
	for _, old := range ended[min(len(ended), topRequests):] {
		delete(s.requests, old.Seq)
	}
}

func (s *topState) setFailure(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = err
}

// sorted returns requests, the newest first. The caller holds mu.
func (s *topState) sorted(keep func(activity.Record) bool) []activity.Record {
	var list []activity.Record
	for _, r := range s.requests {
		if keep(r) {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b activity.Record) int { return cmp.Compare(b.Seq, a.Seq) })
	return list
}

func (r *remote) top(cmd *cobra.Command, once bool) error {
	s := &topState{requests: map[uint64]activity.Record{}}
	if err := s.refresh(cmd.Context(), r); err != nil {
		return err
	}
	if once {
		_, err := io.WriteString(stdout(cmd), s.frame(time.Now(), 0, 0))
		return err
	}
	ctx, stop := contextWithSignal(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var following sync.WaitGroup
	following.Go(func() {
		for ctx.Err() == nil {
			s.setFailure(s.follow(ctx, r))
			select {
			case <-ctx.Done():
			case <-time.After(topInterval): // the service restarts
			}
		}
	})
	defer following.Wait()
	defer stop()
	return s.show(ctx, cmd.OutOrStdout(), r)
}

// show writes a frame at each interval until ctx ends.
func (s *topState) show(ctx context.Context, out io.Writer, r *remote) error {
	screen, terminal := out.(*os.File)
	terminal = terminal && isTerminal(out)
	if terminal { // the alternate screen, without a cursor
		_, _ = io.WriteString(out, "\x1b[?1049h\x1b[?25l")
		defer func() { _, _ = io.WriteString(out, "\x1b[?25h\x1b[?1049l") }()
	}
	tick := time.NewTicker(topInterval)
	defer tick.Stop()
	for {
		if models, err := r.models(ctx); err == nil {
			s.mu.Lock()
			s.models = models
			s.mu.Unlock()
		}
		var text string
		if terminal {
			width, height, _ := term.GetSize(int(screen.Fd())) // 0 is no limit
			text = "\x1b[H" + strings.ReplaceAll(sanitizeTerminal(s.frame(time.Now(), width, height)), "\n", "\x1b[K\r\n") + "\x1b[J"
		} else {
			text = sanitizeTerminal(s.frame(time.Now(), 0, 0)) + "\n"
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// frame returns the text of a frame, no wider and no higher than that; 0: no limit.
func (s *topState) frame(now time.Time, width, height int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	running := s.sorted(func(r activity.Record) bool { return r.Stage != activity.Done })
	waiting, rate := 0, 0.0
	for _, r := range running {
		if r.Stage == activity.Waiting {
			waiting++
		}
		rate += r.TokensPerSecond
	}
	fmt.Fprintf(&b, "go-rocm  %s  %d running, %d waiting, %.1f tokens/s\n", now.Format(time.TimeOnly), len(running)-waiting, waiting, rate)
	if s.capture > 0 {
		fmt.Fprintf(&b, "the service keeps the bodies of the last %d requests (--capture)\n", s.capture)
	}
	if s.failure != nil {
		fmt.Fprintf(&b, "the service does not answer: %v\n", s.failure)
	}
	b.WriteString("\n")
	s.writeCards(&b)
	s.writeModels(&b)
	ended := s.sorted(func(r activity.Record) bool { return r.Stage == activity.Done })
	writeRequests(&b, running, ended)
	return cut(b.String(), width, height)
}

// cut returns the first lines of a text, cut at a width in characters. The last line
// of a screen has no line break, which would scroll it.
func cut(text string, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if height > 0 && len(lines) > height-1 {
		lines = lines[:max(height-1, 1)]
	}
	for i, line := range lines {
		if runes := []rune(line); width > 0 && len(runes) > width {
			lines[i] = string(runes[:width])
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

// table writes rows below a head.
func table(b *strings.Builder, head string, rows []string) {
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, head)
	for _, row := range rows {
		_, _ = fmt.Fprintln(w, row)
	}
	_ = w.Flush() // to memory
	b.WriteString("\n")
}

// barCells is the width of a bar of memory.
const barCells = 20

// memoryBar draws our memory as #, that of others as + and free memory as dots.
func memoryBar(c *activity.Card) string {
	if c.Total == 0 || !c.Known {
		return ""
	}
	cells := func(n uint64) int { return int(float64(min(n, c.Total))/float64(c.Total)*barCells + 0.5) }
	ours := cells(c.Ours)
	used := max(cells(c.Used), ours)
	return "[" + strings.Repeat("#", ours) + strings.Repeat("+", used-ours) + strings.Repeat(".", barCells-used) + "]"
}

func (s *topState) writeCards(b *strings.Builder) {
	if len(s.sample.Cards) == 0 {
		return
	}
	var rows []string
	for _, c := range s.sample.Cards {
		sensors := fmt.Sprintf("%s\t%s\t%.0f %%", measured(cmp.Or(c.JunctionCelsius, c.EdgeCelsius), "°C"), measured(c.PowerWatts, "W"), c.BusyPercent)
		if c.Suspended {
			sensors = "asleep\t\t"
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", c.PCI, printable(c.Name), memoryBar(&c),
			formatSize(c.Ours), formatSize(c.Others()), formatSize(c.Total-min(c.Used, c.Total)), sensors, strings.Join(c.Throttled, " ")))
	}
	table(b, "CARD\tNAME\tMEMORY\tOURS #\tOTHERS +\tFREE .\tTEMPERATURE\tPOWER\tBUSY\tTHROTTLED BY", rows)
}

// measured formats what a sensor reports; 0 is no report.
func measured(value float64, unit string) string {
	if value == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f %s", value, unit)
}

func (s *topState) writeModels(b *strings.Builder) {
	var rows []string
	for _, m := range s.models {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%s", printable(m.ID), cmp.Or(printable(m.State), "loaded"), m.Running, m.Waiting, printable(m.Cause)))
	}
	table(b, "MODEL\tSTATE\tRUNNING\tWAITING\tNOTE", rows)
}

// writeRequests writes the requests that run, and then the last ones that ended.
func writeRequests(b *strings.Builder, running, ended []activity.Record) {
	var rows []string
	for _, r := range append(running, ended...) {
		state := string(r.Stage)
		if r.Stage == activity.Done {
			state = fmt.Sprintf("%s %d", r.Outcome, r.Status)
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d+%d\t%d\t%s\t%s",
			r.Time.Local().Format(time.TimeOnly), printable(r.Model), printable(r.Key), printable(r.Route), printable(state),
			seconds(r.WaitSeconds), seconds(r.FirstTokenSeconds), r.CachedTokens, r.PromptTokens-r.CachedTokens, r.GeneratedTokens,
			rateText(r.TokensPerSecond), printable(r.Why)))
	}
	table(b, "TIME\tMODEL\tKEY\tROUTE\tSTATE\tWAIT\tFIRST TOKEN\tPROMPT (CACHED+NEW)\tTOKENS\tTOKENS/S\tWHY", rows)
}

func seconds(s float64) string {
	if s == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f s", s)
}

func rateText(rate float64) string {
	if rate == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", rate)
}
