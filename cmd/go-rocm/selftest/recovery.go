package selftest

import (
	"context"
	"fmt"
	"slices"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Limits of what a user waits for.
const (
	defaultSlotLimit   = 10 * time.Second
	defaultUnloadLimit = 20 * time.Second
)

// freedSlack is how much memory may remain in use after a model was unloaded, in bytes:
// the programs of a desktop change theirs all the time.
const freedSlack = 64 << 20

const remedyIssue = "attach this report to an issue"

// cancel leaves an answer, and waits until its slot is free.
func (s *session) cancel(ctx context.Context) Result {
	reading, leave := context.WithCancel(ctx)
	defer leave()
	prompt, err := s.prompt(ctx)
	if err != nil {
		return failed(remedyDoctor, "the text cannot be tokenized: %s", firstLine(err.Error()))
	}
	length, temperature := testContext/2, float32(0)
	stream, err := s.model.API().Completion(reading, &llamaapi.CompletionRequest{
		Prompts: []llamaapi.Prompt{{Tokens: prompt}}, MaxTokens: &length, Temperature: &temperature, Extra: map[string]any{"ignore_eos": true},
	})
	if err != nil {
		return failed(remedyDoctor, "no answer began: %s", firstLine(err.Error()))
	}
	read := 0
	for stream.Next() {
		if read++; read == 4 {
			break
		}
	}
	err = stream.Err()
	leave()
	_ = stream.Close()
	if read == 0 {
		return failed(remedyDoctor, "no token came before the request was cancelled: %v", err)
	}
	start := time.Now()
	free, err := poll(ctx, s.o.slotLimit, func(ctx context.Context) (bool, error) {
		slots, err := s.model.API().Slots(ctx)
		return err == nil && !slices.ContainsFunc(slots, func(s llamaapi.Slot) bool { return s.Processing }), err
	})
	wait := time.Since(start)
	if !free {
		return failed(remedyIssue, "the slot of a cancelled request is still in use after %s%s", s.o.slotLimit, because(err))
	}
	res := passed("the slot of a cancelled request was free after %s", wait.Round(time.Millisecond))
	res.Wait = seconds(wait)
	return res
}

// kill kills llama-server, and asks the one that is started in its place.
func (s *session) kill(ctx context.Context) Result {
	prompt, err := s.prompt(ctx)
	var want llamaapi.Completion
	if err == nil {
		want, err = s.complete(ctx, prompt, answerLength)
	}
	if err != nil {
		return failed(remedyDoctor, "no answer before llama-server was killed: %s", firstLine(err.Error()))
	}
	child := s.model.Server().Child
	before, start := child.Pid(), time.Now()
	if before <= 0 {
		return failed(remedyDoctor, "llama-server does not run")
	}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		return failed(remedyIssue, "llama-server cannot be killed: %v", err)
	}
	stopped := false
	started, _ := poll(ctx, MaxTime, func(context.Context) (bool, error) {
		state, pid := child.State(), child.Pid()
		stopped = state.Final()
		return stopped || state == supervise.Ready && pid > 0 && pid != before, nil
	})
	if stopped || !started {
		return failed(remedyDoctor, "llama-server was not started again after it was killed%s", because(child.Err()))
	}
	got, err := s.complete(ctx, prompt, answerLength)
	wait := time.Since(start)
	switch {
	case err != nil:
		return failed(remedyDoctor, "llama-server was killed, and the new one does not answer: %s", firstLine(err.Error()))
	case !slices.Equal(got.Tokens, want.Tokens):
		return failed(remedyIssue, "llama-server was killed, and the new one answers something else")
	case s.model.Server().CurrentPlan().Backend != s.backend:
		return failed(remedyIssue, "llama-server was killed, and the new one runs with %s", s.model.Server().CurrentPlan().Backend)
	}
	res := passed("llama-server was killed, and the same answer came from a new one after %s", wait.Round(time.Millisecond))
	res.Wait = seconds(wait)
	return res
}

// unload unloads the model, and waits until its memory is free.
func (s *session) unload(ctx context.Context) Result {
	pid := s.model.Server().Child.Pid()
	devices := s.model.Server().CurrentPlan().Chosen
	start := time.Now()
	err := s.model.Close()
	s.model = nil
	if err != nil {
		return failed(remedyIssue, "llama-server did not stop cleanly: %s", firstLine(err.Error()))
	}
	if pid > 0 && syscall.Kill(pid, 0) == nil {
		return failed(remedyIssue, "llama-server still runs after the model was unloaded")
	}
	var left uint64
	free, _ := poll(ctx, s.o.unloadLimit, func(context.Context) (bool, error) {
		left = 0
		used := s.usedMemory()
		for _, d := range devices {
			if n := used[d.PCI]; n > s.before[d.PCI] {
				left += n - s.before[d.PCI]
			}
		}
		return left <= freedSlack, nil
	})
	wait := time.Since(start)
	if !free {
		return failed("close other programs that use the card and repeat the test; else "+remedyIssue,
			"%s of the card's memory are still in use %s after the model was unloaded", mib(left), s.o.unloadLimit)
	}
	res := passed("llama-server ended and the card's memory was free after %s", wait.Round(time.Millisecond))
	if len(s.before) == 0 || len(devices) == 0 {
		res.Detail = fmt.Sprintf("llama-server ended after %s", wait.Round(time.Millisecond))
	}
	res.Wait = seconds(wait)
	return res
}

// poll calls done every few milliseconds until it returns true, the limit is over or ctx
// ends, and returns the last result. done's context ends then, too.
func poll(ctx context.Context, limit time.Duration, done func(context.Context) (bool, error)) (ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if ok, err = done(ctx); ok {
			return ok, err
		}
		select {
		case <-ctx.Done():
			return false, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + firstLine(err.Error())
}
