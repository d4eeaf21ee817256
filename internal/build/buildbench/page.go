package buildbench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
)

// PageInput is what ComparePage measures.
type PageInput struct {
	// Command and Without are the command with and without the web page, both without
	// an embedded bundle. Packed is the web page as the command embeds it.
	Command, Without, Packed string
	// Bundle is the packed bundle that the service runs with, Models the directory of its
	// models.
	Bundle, Models string
	// Work is a directory for temporary files.
	Work   string
	Rounds int
	Log    io.Writer
}

// ComparePage measures what the web page adds to the command, and to the start of the
// service.
func ComparePage(ctx context.Context, in PageInput) (page.Section, error) {
	var none page.Section
	var sizes []float64
	for _, name := range []string{in.Packed, in.Command, in.Without} {
		info, err := os.Stat(name)
		if err != nil {
			return none, err
		}
		sizes = append(sizes, float64(info.Size())/1e6)
	}
	with, without := in.start(), in.start("--no-page")
	if _, err := with(ctx); err != nil { // unpacks the bundle
		return none, err
	}
	samples, err := page.Interleave(ctx, in.Rounds, logged(in.Log, "serve", with), logged(in.Log, "serve --no-page", without))
	if err != nil {
		return none, err
	}
	more := page.Median(page.Differences(samples[0], samples[1])) * 1000
	return page.Section{
		Name: page.Page, Title: "The web page",
		Text: []string{fmt.Sprintf("What llama.cpp's web page and `/status` add to the command, and to the time from the start of `go-rocm serve` to the line that prints the address: "+
			"with a model that nobody asks for, so that no llama-server starts. Medians of %d rounds, in alternating order; the difference is the median of the differences of the rounds. "+
			"The page is compressed already, so that it adds as many bytes to the packages and the image.", in.Rounds)},
		Head: []string{"", "with the page", "without", "difference"},
		Rows: [][]string{
			{"the command, MB", page.Figure(sizes[1]), page.Figure(sizes[2]), page.Figure(sizes[1] - sizes[2])},
			{"the packed web page, MB", page.Figure(sizes[0]), "", ""},
			{"start of `serve`, ms", page.Figure(page.Median(samples[0]) * 1000), page.Figure(page.Median(samples[1]) * 1000), page.Figure(more)},
		},
		Goals: []page.Goal{
			{What: "the packed web page:", Got: sizes[0], Limit: 3, Unit: "MB"},
			{What: "added to the start of `serve`:", Got: more, Limit: 10, Unit: "ms"},
		},
	}, nil
}

// start returns a variant that starts the service, and stops it after the measurement.
func (in PageInput) start(args ...string) page.Variant {
	return func(ctx context.Context) (seconds float64, err error) {
		cmd := exec.CommandContext(ctx, in.Command, append([]string{"serve", "--models-dir", in.Models, "--listen", "127.0.0.1:0"}, args...)...)
		cmd.Env = append(os.Environ(), "GOROCM_BUNDLE="+in.Bundle, "GOROCM_CACHE="+filepath.Join(in.Work, "cache"))
		var log strings.Builder
		cmd.Stderr = &log
		out, err := cmd.StdoutPipe()
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		lines := bufio.NewReader(out)
		line, readErr := lines.ReadString('\n')
		seconds = time.Since(begin).Seconds()
		if readErr != nil {
			return 0, fmt.Errorf("serve ended with %w: %s%s", errors.Join(readErr, cmd.Wait()), line, last(log.String(), 20))
		}
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, lines)
		return seconds, errors.Join(err, cmd.Wait())
	}
}
