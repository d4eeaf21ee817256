//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// said is an answer of the service to a chat.
type said struct {
	status int
	model  string
	text   string
}

// chatWith asks a model a question that it answers with the same text each time.
func (s *served) chatWith(t *testing.T, model string) said {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hello"}],"max_tokens":8,"temperature":0,"cache_prompt":false}`, model)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return said{}
	}
	defer func() { _ = res.Body.Close() }()
	var answer struct {
		Model   string `json:"model"`
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Error(err)
	}
	out := said{status: res.StatusCode, model: answer.Model}
	if len(answer.Choices) == 1 {
		out.text = answer.Choices[0].Message.Content
	}
	return out
}

// TestServeSeveralModels lets 64 clients use a trained model and three random ones
// while processes are killed, models are unloaded and the settings change. Each answer
// has the text of the model that was asked for, and in the end no process is left.
func TestServeSeveralModels(t *testing.T) {
	files := map[string]string{"smol": realModel(t, models.SmolLM2())}
	for seed := range uint64(3) {
		files[fmt.Sprint("tiny-", seed)] = tiny(t, "llama-spm", seed+1)
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	configure := func(stallTimeout string) {
		var b bytes.Buffer
		fmt.Fprintf(&b, "min-residency = \"1s\"\n[defaults]\nslots = 1\ncache-ram = -1\nstall-timeout = %q\n", stallTimeout)
		for name, file := range files {
			fmt.Fprintf(&b, "[models.%s]\nmodel = %q\n", name, file)
		}
		if err := os.WriteFile(config+".new", b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(config+".new", config); err != nil {
			t.Fatal(err)
		}
	}
	configure("5m")
	s := serve(t, "--config", config, "--watch-config")
	want := map[string]said{}
	var names []string
	texts := map[string]bool{}
	for name := range files {
		answer := s.chatWith(t, name)
		if answer.status != http.StatusOK || answer.model != name || texts[answer.text] {
			t.Fatalf("%s: %+v", name, answer)
		}
		want[name], texts[answer.text] = answer, true
		names = append(names, name)
	}

	var good, failed atomic.Int64
	var clients sync.WaitGroup
	for client := range 64 {
		clients.Go(func() {
			for round := range 6 {
				name := names[(client+round)%len(names)]
				switch got := s.chatWith(t, name); {
				case got == want[name]:
					good.Add(1)
				case got.status == http.StatusBadGateway, got.status == http.StatusServiceUnavailable:
					failed.Add(1) // its process was killed
				default:
					t.Errorf("%s: %+v, want %+v", name, got, want[name])
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { clients.Wait(); close(finished) }()
	change := time.NewTicker(time.Second)
	defer change.Stop()
	for step := 0; ; step++ {
		select {
		case <-finished:
		case <-change.C:
			switch step % 3 {
			case 0:
				if pids := children(t, s.cmd.Process.Pid); len(pids) > 0 {
					_ = syscall.Kill(pids[step%len(pids)], syscall.SIGKILL) // it may have ended
				}
			case 1:
				s.control(t, "unload", names[step%len(names)])
			case 2:
				configure(fmt.Sprint(5+step, "m"))
			}
			continue
		}
		break
	}
	t.Logf("%d answers, %d requests whose process was killed", good.Load(), failed.Load())
	if good.Load() < failed.Load() {
		t.Errorf("%d answers, but %d failures", good.Load(), failed.Load())
	}
	for _, name := range names {
		s.control(t, "unload", name)
	}
	poll.Until(t, "the end of all processes", func() bool { return len(children(t, s.cmd.Process.Pid)) == 0 })
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("serve ended with %v", err)
	}
}

// control asks the service to load or unload a model, and waits for that.
func (s *served) control(t *testing.T, verb, model string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/models/"+verb, strings.NewReader(fmt.Sprintf(`{"model":%q,"wait":true}`, model)))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_ = res.Body.Close() // a model that is not loaded is answered 400
}
