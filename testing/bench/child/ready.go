package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/runtime/extract"
)

// Ready compares a warm start with the bare program, for each bundle.
func Ready(ctx context.Context, in Input, bundles ...string) (page.Section, error) {
	s := page.Section{
		Name: "ready", Title: "A warm start",
		Text: []string{
			fmt.Sprintf("From the call of `Backend.Load` to a model that answers, with an unpacked bundle: check of the bundle, reading of the model, discovery of GPUs, planning, start of the child. "+
				"The peer is the same command line without the supervisor; `/health` is polled two thousand times per second. The model is the %s, which takes little time to load. "+
				"Medians of %d rounds; the difference is the median of the differences of the rounds.", in.Tiny.Name, in.Rounds),
			"The check of the unpacked bundle, which is part of each start, is also measured alone: `extract.Extract` of an installed bundle, for one target.",
		},
		Head: []string{"bundle", "Load, ms", "bare, ms", "difference, ms", "check of the files, ms", "files"},
	}
	for _, b := range bundles {
		one := in
		one.Bundle = b
		if err := one.readyRow(ctx, &s); err != nil {
			return s, fmt.Errorf("%s: %w", b, err)
		}
	}
	return s, nil
}

func (in *Input) readyRow(ctx context.Context, s *page.Section) error {
	m, err := in.load(ctx, in.Tiny, 1, 512, "")
	if err != nil {
		return err
	}
	d := m.Server().Child.Diagnose()
	if err := m.Close(); err != nil {
		return err
	}
	run, err := os.MkdirTemp("", "bare-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(run) }()
	socket := filepath.Join(run, "s.sock")
	b := bareServer{argv: withHost(d.Argv, socket), env: d.Env, dir: d.Dir, socket: socket}
	supervised := func(ctx context.Context) (float64, error) {
		start := time.Now()
		m, err := in.load(ctx, in.Tiny, 1, 512, "")
		took := time.Since(start)
		if err != nil {
			return 0, err
		}
		in.printf("Load: %.1f ms", ms(took))
		return ms(took), m.Close()
	}
	bare := func(ctx context.Context) (float64, error) {
		took, err := b.start(ctx)
		in.printf("bare: %.1f ms", ms(took))
		return ms(took), err
	}
	samples, err := page.Interleave(ctx, in.Rounds, supervised, bare)
	if err != nil {
		return err
	}
	name := filepath.Base(in.Bundle)
	difference := page.Median(page.Differences(samples[0], samples[1]))
	row := []string{"`" + name + "`", page.Figure(page.Median(samples[0])), page.Figure(page.Median(samples[1])), page.Figure(difference), "", ""}
	s.Goals = append(s.Goals, page.Goal{What: name + ", Load over the bare program:", Got: difference, Limit: 5, Unit: "ms"})
	if info, err := os.Stat(in.Bundle); err == nil && info.Mode().IsRegular() {
		check, files, err := in.check(ctx)
		if err != nil {
			return err
		}
		row[4], row[5] = page.Figure(check), fmt.Sprint(files)
		s.Goals = append(s.Goals, page.Goal{What: name + ", check of the files:", Got: check, Limit: 1, Unit: "ms"})
	}
	s.Rows = append(s.Rows, row)
	return nil
}

// check measures the check of an installed bundle, in milliseconds.
func (in *Input) check(ctx context.Context) (took float64, files int, err error) {
	p, err := bundle.OpenFile(in.Bundle)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	targets := p.Manifest().Targets
	if len(targets) > 1 {
		targets = targets[:1]
	}
	if targets == nil {
		targets = []gfx.Target{}
	}
	o := extract.Options{Targets: targets}
	if _, err := extract.Extract(ctx, p.Reader, o); err != nil {
		return 0, 0, err
	}
	want := bundle.ForTargets(targets)
	for _, f := range p.Manifest().Files {
		if want(f) {
			files++
		}
	}
	var samples []float64
	for range 100 {
		start := time.Now()
		inst, err := extract.Extract(ctx, p.Reader, o)
		samples = append(samples, ms(time.Since(start)))
		if err != nil {
			return 0, 0, err
		}
		if inst.Changed {
			return 0, 0, errors.New("an installed bundle was unpacked again")
		}
	}
	return page.Median(samples), files, nil
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }

// withHost returns the arguments with another --host.
func withHost(argv []string, socket string) []string {
	out := append([]string{}, argv...)
	for i, a := range out[:len(out)-1] {
		if a == "--host" {
			out[i+1] = socket
		}
	}
	return out
}

// bareServer is a llama-server without the supervisor.
type bareServer struct {
	argv, env   []string
	dir, socket string
}

// start measures the time until the program is ready, and kills it.
func (b *bareServer) start(ctx context.Context) (took time.Duration, err error) {
	if err := os.RemoveAll(b.socket); err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, b.argv[0], b.argv[1:]...)
	cmd.Dir, cmd.Env = b.dir, b.env
	stdin, err := cmd.StdinPipe() // the server exits when it is closed
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	err = b.poll(ctx)
	took = time.Since(begin)
	_ = stdin.Close()
	_ = cmd.Process.Kill() // the process that was started above
	_ = cmd.Wait()         // killed
	return took, err
}

func (b *bareServer) poll(ctx context.Context) error {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", b.socket)
	}}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(500 * time.Microsecond) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://llama/health", http.NoBody)
		if err != nil {
			return err
		}
		resp, err := hc.Do(req)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			continue // not listening yet
		}
		_, err = io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		if resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("%s was not ready in two minutes", strings.Join(b.argv, " "))
}
