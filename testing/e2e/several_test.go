//go:build e2e

package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/goroutines"
	"forge.lthn.ai/core/go-rocm/testing/models"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// said is an answer of the service to a chat.
type said struct {
	status int
	model  string
	text   string // of the answer, or of the error
	wait   string // Retry-After
}

// chatWith asks a model a question that it answers with the same text each time.
func (s *served) chatWith(t *testing.T, model string) said {
	t.Helper()
	return s.chatAs(t, http.DefaultClient, "", model)
}

// chatAs is chatWith with a client and an API key.
func (s *served) chatAs(t *testing.T, client *http.Client, key, model string) said {
	t.Helper()
	body := fmt.Sprintf(`{"model":%q,"messages":[{"role":"user","content":"Hello"}],"max_tokens":8,"temperature":0,"cache_prompt":false}`, model)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	res, err := client.Do(req)
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
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		t.Error(err)
	}
	out := said{status: res.StatusCode, model: answer.Model, text: answer.Error.Message, wait: res.Header.Get("Retry-After")}
	if len(answer.Choices) == 1 {
		out.text = answer.Choices[0].Message.Content
	}
	return out
}

const (
	// envSeveralTime is how long the clients of TestServeSeveralModels ask; `mage torture`
	// sets ten minutes.
	envSeveralTime = "GOROCM_SEVERAL_TIME"
	severalClients = 64
	// removable is the model that the settings sometimes leave out.
	removable = "tiny-2"
	adminKey  = "administrator"
)

// severalModels is a service of four models, of which the memory has room for two or
// three.
type severalModels struct {
	*served

	files  map[string]string
	names  []string
	want   map[string]said // what each model answers when it is served alone
	config string
	keys   string // the file with adminKey
	log    *bytes.Buffer
}

// newSeveralModels asks each model alone, and writes the settings.
func newSeveralModels(t *testing.T) *severalModels {
	t.Helper()
	dir := t.TempDir()
	s := &severalModels{files: map[string]string{"smol": realModel(t, models.SmolLM2())}, want: map[string]said{}, config: filepath.Join(dir, "config.toml"), keys: filepath.Join(dir, "keys")}
	for seed := range uint64(3) {
		s.files[fmt.Sprint("tiny-", seed)] = tiny(t, "llama-spm", seed+1)
	}
	s.names = slices.Sorted(maps.Keys(s.files))
	texts := map[string]bool{}
	for _, name := range s.names {
		alone := serve(t, "--alias", name, "--slots", "1", "--cache-ram", "-1", s.files[name])
		answer := alone.chatWith(t, name)
		alone.stop(t)
		if answer.status != http.StatusOK || answer.model != name || answer.text == "" || texts[answer.text] {
			t.Fatalf("%s: %+v", name, answer)
		}
		s.want[name], texts[answer.text] = answer, true
	}
	if err := os.WriteFile(s.keys, []byte(adminKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.configure(t, s.names, nil)
	return s
}

// clientKey is the key of a client.
func clientKey(client int) string { return fmt.Sprint("client-", client) }

// configure writes the settings of the models with these names. A model is another one
// with another number of minutes in stall, its stall-timeout.
func (s *severalModels) configure(t *testing.T, names []string, stall map[string]int) {
	t.Helper()
	need := func(name string) uint64 {
		var set rocm.Settings
		set.Slots, set.Context, set.Cache.HostLimit = 1, 2048, -1
		p, err := rocm.Plan(s.files[name], set)
		if err != nil {
			t.Fatal(err)
		}
		return p.Host.Used()
	}
	host := (need("smol") + 2*need("tiny-0")) * 17 / 16 * 16 / 15 // with the margin
	var b bytes.Buffer
	fmt.Fprintf(&b, "min-residency = \"1s\"\nhost-memory = %d\n[defaults]\nslots = 1\ncontext = 2048\ncache-ram = -1\n", host/plan.MiB)
	for _, name := range names {
		fmt.Fprintf(&b, "[models.%s]\nmodel = %q\nstall-timeout = \"%dm\"\n", name, s.files[name], 5+stall[name])
	}
	for client := range severalClients {
		fmt.Fprintf(&b, "[keys.client-%d]\nsha256 = \"%x\"\n", client, sha256.Sum256([]byte(clientKey(client))))
	}
	if err := os.WriteFile(s.config+".new", b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(s.config+".new", s.config); err != nil {
		t.Fatal(err)
	}
}

// start starts the service, and asks each model once.
func (s *severalModels) start(t *testing.T, client *http.Client) {
	t.Helper()
	s.served, s.log = serveLogged(t, "--config", s.config, "--api-key-file", s.keys)
	for _, name := range s.names {
		if got := s.chatAs(t, client, adminKey, name); got != s.want[name] {
			t.Fatalf("%s: %+v, want %+v", name, got, s.want[name])
		}
	}
}

// control asks the service to load or unload a model, and waits for that. A model that
// is not in the needed state is answered 400.
func (s *severalModels) control(t *testing.T, client *http.Client, verb, model string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/models/"+verb, strings.NewReader(fmt.Sprintf(`{"model":%q,"wait":true}`, model)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+adminKey)
	res, err := client.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	_, _ = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
}

// rest unloads all models and returns what the service then has open: the number of
// descriptors of each kind. The client must have no idle connections.
func (s *severalModels) rest(t *testing.T, client *http.Client) map[string]int {
	t.Helper()
	for _, name := range s.names {
		s.control(t, client, "unload", name)
	}
	poll.Until(t, "the end of all processes", func() bool { return len(children(t, s.cmd.Process.Pid)) == 0 })
	client.CloseIdleConnections()
	return descriptors(t, s.cmd.Process.Pid)
}

// descriptors counts the open files of a process by kind: sockets, pipes, and the rest
// by name.
func descriptors(t *testing.T, pid int) map[string]int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // closed meanwhile
		}
		if kind, _, ok := strings.Cut(target, ":["); ok {
			target = kind
		}
		count[target]++
	}
	return count
}

// goroutinesAtEnd ends the service by SIGQUIT and returns the goroutines that it had.
func (s *severalModels) goroutinesAtEnd(t *testing.T) goroutines.Set {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait() // status 2
	_, trace, ok := strings.Cut(s.log.String(), "SIGQUIT: quit")
	if !ok {
		t.Fatalf("no stacks in the log of the service: %s", s.log)
	}
	running := goroutines.Parse(trace)
	maps.DeleteFunc(running, func(name string, _ int) bool { return strings.HasPrefix(name, "runtime.") }) // Go's own, and those that end
	return running
}

// TestServeSeveralModels lets 64 clients use a trained model and three random ones
// while processes are killed, models are loaded and unloaded, and the settings change
// with a signal. Each answer has the text that the model has when it is served alone. In
// the end the service has no more processes, open files, sockets and goroutines than one
// that has answered four requests.
func TestServeSeveralModels(t *testing.T) {
	limit := cases.Of(12*time.Second, 12*time.Second, 40*time.Second) // each kind of change at least twice
	if text := os.Getenv(envSeveralTime); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatalf("%s: %v", envSeveralTime, err)
		}
	}
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: severalClients + 1}}
	s := newSeveralModels(t)
	s.start(t, client)
	before := s.rest(t, client)
	fresh := s.goroutinesAtEnd(t)
	s.start(t, client)

	var good atomic.Int64
	var failures failures
	var clients sync.WaitGroup
	end := time.Now().Add(limit)
	for n := range severalClients {
		clients.Go(func() {
			for round := 0; time.Now().Before(end) && !t.Failed(); round++ {
				name := s.names[(n+round)%len(s.names)]
				got := s.chatAs(t, client, clientKey(n), name)
				switch {
				case got == s.want[name]:
					good.Add(1)
					continue
				case got.status == http.StatusNotFound && name == removable:
				case got.status == http.StatusBadGateway, got.status == http.StatusServiceUnavailable, got.status == http.StatusTooManyRequests && strings.Contains(got.text, "crash"):
				default:
					t.Errorf("%s: %+v, want %+v", name, got, s.want[name])
				}
				failures.add(fmt.Sprint(got.status, " ", got.text))
				if seconds, err := strconv.Atoi(got.wait); err == nil {
					time.Sleep(min(time.Duration(seconds)*time.Second, time.Until(end))) // what the service asks of clients
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { clients.Wait(); close(finished) }()
	changes := s.change(t, client, finished)
	t.Logf("%d right answers; changes %v; failures:\n%s", good.Load(), changes, &failures)
	if good.Load() < failures.sum() {
		t.Errorf("%d right answers, but %d failures", good.Load(), failures.sum())
	}

	s.configure(t, s.names, nil)
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, name := range s.names { // the models of a service that was tortured answer as before
		poll.Until(t, "an answer of "+name, func() bool { return s.chatAs(t, client, adminKey, name) == s.want[name] })
	}
	more := func() []string {
		var found []string
		now := s.rest(t, client)
		for _, kind := range slices.Sorted(maps.Keys(now)) {
			if now[kind] > before[kind] {
				found = append(found, fmt.Sprintf("%d of %s, %d before", now[kind], kind, before[kind]))
			}
		}
		return found
	}
	poll.Until(t, "the open files to be those of before", func() bool { return len(more()) == 0 })
	if sockets, err := filepath.Glob(filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), "*", "*", "*.sock")); err != nil || len(sockets) > 0 {
		t.Errorf("sockets are left: %v, %v", sockets, err)
	}
	for _, leak := range s.goroutinesAtEnd(t).Since(fresh) {
		t.Errorf("a leak: %s", leak)
	}
}

// failures counts answers by their texts.
type failures struct {
	mu    sync.Mutex
	count map[string]int64
}

func (f *failures) add(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count == nil {
		f.count = map[string]int64{}
	}
	f.count[text]++
}

func (f *failures) sum() (n int64) {
	for _, each := range f.count {
		n += each
	}
	return n
}

// String lists the texts.
func (f *failures) String() string {
	var b strings.Builder
	for _, text := range slices.Sorted(maps.Keys(f.count)) {
		fmt.Fprintf(&b, "%6d  %s\n", f.count[text], text)
	}
	return b.String()
}

// change kills, loads, unloads and reconfigures until finished, and returns how often. Of five changes each
// is another one.
func (s *severalModels) change(t *testing.T, client *http.Client, finished <-chan struct{}) map[string]int {
	t.Helper()
	random := rand.New(rand.NewPCG(1, 2)) // so that a run can be repeated
	pause := time.NewTicker(time.Second)
	defer pause.Stop()
	count, stall := map[string]int{}, map[string]int{}
	kinds := []string{"kill", "unload", "load", "change", "remove"}
	for n := 0; ; n++ {
		select {
		case <-finished:
			return count
		case <-pause.C:
		}
		name := s.names[random.IntN(len(s.names))]
		if n %= len(kinds); n == 0 {
			random.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		}
		what := kinds[n]
		count[what]++
		switch what {
		case "kill":
			if pids := children(t, s.cmd.Process.Pid); len(pids) > 0 {
				_ = syscall.Kill(pids[random.IntN(len(pids))], syscall.SIGKILL) // it may have ended
			}
		case "unload", "load":
			s.control(t, client, what, name)
		case "change", "remove":
			names := s.names
			stall[name]++
			if what == "remove" {
				names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == removable })
			}
			s.configure(t, names, stall)
			if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
}
