//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/pkg/llamaapi"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// longest is the limit of tokens for a request that should not end by itself.
const longest = 1800

// freed waits until no slot is busy, and checks that the request did not end by itself:
// then the slot would contain all the requested tokens.
func freed(t *testing.T, api *llamaapi.Client) {
	t.Helper()
	var slots []llamaapi.Slot
	poll.Until(t, "an idle slot", func() bool {
		var err error
		if slots, err = api.Slots(t.Context()); err != nil {
			t.Fatal(err)
		}
		return len(slots) > 0 && !slices.ContainsFunc(slots, func(s llamaapi.Slot) bool { return s.Processing })
	})
	for _, s := range slots {
		if s.PromptTokens == 0 || s.PromptTokens >= longest {
			t.Errorf("slot %d holds %d tokens of an answer of %d that was left", s.ID, s.PromptTokens, longest)
		}
	}
}

// long returns a request that keeps a slot busy: the model continues to count.
func long(ctx context.Context, model *rocm.Model) func(func(inference.Token) bool) {
	return model.Generate(ctx, "1, 2, 3, 4,", inference.WithMaxTokens(longest))
}

func TestLeavingFreesTheSlot(t *testing.T) {
	model := load(t, realModel(t, models.SmolLM2()), inference.WithParallelSlots(1))
	t.Run("break", func(t *testing.T) {
		for range long(t.Context(), model) {
			break
		}
		if err := model.Err(); err != nil {
			t.Errorf("leaving the loop is no failure: %v", err)
		}
		freed(t, model.API())
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := 0
		for range long(ctx, model) {
			if n++; n == 2 {
				cancel()
			}
		}
		if err := model.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("Err is %v", err)
		}
		freed(t, model.API())
	})
	t.Run("the one slot answers again", func(t *testing.T) {
		if text := chat(t, model); !strings.Contains(text, answer) {
			t.Errorf("answered %q", text)
		}
	})
	t.Run("close ends a loop", func(t *testing.T) {
		pid := model.Server().Child.Pid()
		n := 0
		for range long(t.Context(), model) {
			if n++; n == 1 {
				go func() { _ = model.Close() }()
			}
		}
		if err := model.Err(); !errors.Is(err, rocm.ErrClosed) {
			t.Errorf("Err is %v", err)
		}
		if err := model.Close(); err != nil {
			t.Errorf("closing twice: %v", err)
		}
		if !ended(pid) {
			t.Errorf("process %d lives on after Close", pid)
		}
	})
}

// TestKilledParentLeavesNoOrphan kills a program with SIGKILL in the middle of an
// answer.
func TestKilledParentLeavesNoOrphan(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), askProgram(t), "-max", "1800", realModel(t, models.SmolLM2()), "Write a very long story about a river.")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadByte(); err != nil {
		t.Fatalf("ask said nothing: %v", err)
	}
	servers := children(t, cmd.Process.Pid)
	if len(servers) == 0 {
		t.Error("found no llama-server under ask")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("ask ended well though it was killed")
	}
	for _, pid := range servers {
		poll.Until(t, "the end of the orphaned server", func() bool { return ended(pid) })
	}
	// The next start removes the files of the killed program.
	if got := ask(t, "-max", "16", realModel(t, models.SmolLM2()), question); !strings.Contains(got.Text, answer) {
		t.Errorf("answered %q", got.Text)
	}
}

// TestProcessesExtractTogether starts several programs at the same time with an empty
// cache.
func TestProcessesExtractTogether(t *testing.T) {
	cache := t.TempDir()
	model := tiny(t, "llama-spm", 1)
	bin := askProgram(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			cmd := exec.CommandContext(t.Context(), bin, "-raw", "-max", "4", model, "Hello")
			cmd.Env = append(os.Environ(), envCache+"="+cache)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("ask: %v\n%s", err, out)
			}
		})
	}
	wg.Wait()
	found, err := locate.Find("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := found.Close(); err != nil {
			t.Error(err)
		}
	}()
	if found.Dir != "" {
		return // the bundle is unpacked, so nothing is extracted
	}
	var servers []string
	err = filepath.WalkDir(cache, func(path string, _ os.DirEntry, err error) error {
		if err == nil && filepath.Base(path) == "llama-server" {
			servers = append(servers, path)
		}
		return err
	})
	if err != nil || len(servers) != 1 {
		t.Errorf("the cache holds %d extractions: %v, %v", len(servers), servers, err)
	}
}
