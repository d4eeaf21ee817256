package several

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// memory measures what a service itself takes, without its children, and what an open
// stream takes in it. It is the first step: the memory of a program that has had many
// streams does not grow with further ones.
func (b *both) memory(ctx context.Context) error {
	var atRest, busy, each []float64
	for _, s := range b.services {
		rest, growth, full, err := b.memoryOf(ctx, s)
		if err != nil {
			return fmt.Errorf("memory of %s: %w", s.name, err)
		}
		atRest, each, busy = append(atRest, rest/1024), append(each, growth/float64(b.in.slots)), append(busy, full/1024)
	}
	b.once("MiB of resident memory of the service's process, one model loaded", atRest, nil)
	b.once(fmt.Sprintf("the same with %d open streams", b.in.slots), busy, nil)
	b.once("KiB of memory for each of these streams", each, nil)
	return nil
}

// memoryOf returns the resident memory of a service with one model loaded, the growth of
// its anonymous memory by streams for all slots, and its resident memory then, in KiB.
func (b *both) memoryOf(ctx context.Context, s *service) (rest, growth, full float64, err error) {
	c := s.through(fileTiny)
	defer func() { err = errors.Join(err, c.close()) }()
	if _, err := c.stream(ctx, 2); err != nil {
		return 0, 0, 0, err
	}
	if rest, err = s.memoryKiB(rss); err != nil {
		return 0, 0, 0, err
	}
	before, err := s.memoryKiB(rssAnon)
	if err != nil {
		return 0, 0, 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var first sync.WaitGroup
	var failed atomic.Value
	var open errgroup.Group
	first.Add(b.in.slots)
	for range b.in.slots {
		open.Go(func() error {
			res, err := c.open(ctx, slotTokens-32)
			if err == nil {
				_, err = io.ReadFull(res.Body, make([]byte, 1))
			}
			if err != nil {
				failed.CompareAndSwap(nil, err)
			}
			first.Done()
			if res == nil {
				return nil
			}
			<-ctx.Done() // unread
			return res.Body.Close()
		})
	}
	first.Wait()
	after, err := s.memoryKiB(rssAnon)
	full, errFull := s.memoryKiB(rss)
	cancel()
	_ = open.Wait()
	if cause, ok := failed.Load().(error); ok {
		err = errors.Join(err, cause)
	}
	return rest, after - before, full, errors.Join(err, errFull)
}

// The fields of /proc/PID/status: all resident memory of a process, and what of it is in no
// file.
const rss, rssAnon = "VmRSS:", "RssAnon:"

// memoryKiB returns a field of the memory of the service itself, in KiB.
func (s *service) memoryKiB(field string) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			return strconv.ParseFloat(strings.Fields(rest)[0], 64)
		}
	}
	return 0, fmt.Errorf("no %s in /proc/PID/status", field)
}
