//go:build linux && amd64

package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/syncbuffer"
)

// newSeveral makes a service of several models, without its listener, from a
// configuration file with text.
func newSeveral(t *testing.T, path, text string, flags ...string) (*severalServer, *syncbuffer.Buffer) {
	t.Helper()
	write(t, path, text)
	cmd, f := newServe()
	cmd.SetContext(t.Context())
	if err := cmd.ParseFlags(append([]string{"--config", path}, flags...)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.configure(cmd, nil); err != nil || !f.several {
		t.Fatal(err, f.several)
	}
	log := new(syncbuffer.Buffer)
	logger := slog.New(slog.NewTextHandler(log, nil))
	checked, err := f.prepareSeveral(cmd, logger)
	if err != nil {
		t.Fatal(err)
	}
	pool, err := rocm.NewPool(checked.pool)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return &severalServer{cmd: cmd, log: logger, current: f, pool: pool, credentials: checked.credentials, reloaded: func() {}}, log
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// useFake makes this process use the bundle of a world, and returns its model.
func useFake(t *testing.T) string {
	t.Helper()
	w := newWorld(t, fakellama.Script{})
	for _, pair := range w.env {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	return w.model
}

func modelNames(p *rocm.Pool) string {
	var names []string
	for _, m := range p.List() {
		names = append(names, m.Name)
	}
	return strings.Join(names, " ")
}

// configOf returns a configuration file with models of one file, which differ in their
// slots.
func configOf(model string, top string, names ...string) string {
	for _, name := range names {
		top += "\n[models." + name + "]\nmodel = \"" + model + "\"\nslots = " + strconv.Itoa(1+int(name[0]-'a')) + "\n"
	}
	return top
}

func TestReloadAppliesAllOrNothing(t *testing.T) {
	model := useFake(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	s, log := newSeveral(t, path, configOf(model, "", "a", "b"))
	for _, step := range []struct{ name, text, want, logged string }{
		{"a missing file", configOf(model, "", "a", "c") + "[models.x]\nmodel = \"/no/such.gguf\"\n", "a b", "level=ERROR.*/no/such.gguf"},
		{"an unknown key", configOf(model, "colour = 1", "a", "c"), "a b", "unknown key"},
		{"a key that limits cannot have", configOf(model, "", "a") + "[keys.k]\nsha256 = \"x\"\n", "a b", "64 hexadecimal digits"},
		{"one model", "model = \"" + model + "\"", "a b", "needs a restart"},
		{"no file", "", "a b", "model is empty"},
		{"other models", configOf(model, "drain = \"1s\"", "a", "c"), "a c", "changes=\"[b is removed c is new]\""},
		{"the same again", configOf(model, "drain = \"2s\"", "a", "c"), "a c", "key=drain"},
	} {
		before := len(log.String())
		write(t, path, step.text)
		s.reload()
		if got := modelNames(s.pool); got != step.want {
			t.Errorf("%s: models %s, want %s", step.name, got, step.want)
		}
		text := log.String()[before:]
		for part := range strings.SplitSeq(step.logged, ".*") {
			if !strings.Contains(text, part) {
				t.Errorf("%s: logged %s, want %s", step.name, text, step.logged)
			}
		}
	}
}

// A reload that changes the address and removes the last key would leave the old address
// open, on which the service goes on listening.
func TestReloadLeavesNoAddressOpen(t *testing.T) {
	model := useFake(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	keys := "\n[keys.alice]\nsha256 = \"" + strings.Repeat("0", 64) + "\"\n"
	s, log := newSeveral(t, path, configOf(model, "listen = \"0.0.0.0:8080\"", "a")+keys)
	if err := s.credentials.Protect("0.0.0.0:8080"); err != nil {
		t.Fatal(err)
	}
	write(t, path, configOf(model, "listen = \"127.0.0.1:8080\"", "a", "b"))
	s.reload()
	if !s.credentials.HasKeys() || modelNames(s.pool) != "a" || !strings.Contains(log.String(), "no API key would be left") {
		t.Errorf("keys: %v, models %s, log %s", s.credentials.HasKeys(), modelNames(s.pool), log.String())
	}
	write(t, path, configOf(model, "listen = \"127.0.0.1:8080\"", "a", "b")+keys)
	s.reload()
	if modelNames(s.pool) != "a b" {
		t.Errorf("with the key: models %s, log %s", modelNames(s.pool), log.String())
	}
}

func TestWatchedConfigurationIsReloaded(t *testing.T) {
	model := useFake(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	s, _ := newSeveral(t, path, configOf(model, "", "a"), "--watch-config")
	defer newReloader(s.current.version, s.watchedVersion, s.reload).run(t.Context(), nil)()
	write(t, path, configOf(model, "", "a", "d"))
	poll.Until(t, "the models of the changed file", func() bool { return modelNames(s.pool) == "a d" })
}

// All clients who ask for a reload at once get an answer after one that began later.
func TestClientsRequestReloads(t *testing.T) {
	model := useFake(t)
	path := filepath.Join(t.TempDir(), "config.toml")
	s, _ := newSeveral(t, path, configOf(model, "", "a"))
	reloads := newReloader(s.current.version, s.watchedVersion, s.reload)
	defer reloads.run(t.Context(), nil)()
	write(t, path, configOf(model, "", "a", "d"))
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			if reloads.request(t.Context()); modelNames(s.pool) != "a d" {
				t.Errorf("after the reload: %s", modelNames(s.pool))
			}
		})
	}
	clients.Wait()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	reloads.request(ended) // it returns
}

func TestServeReloadsModelsOnSIGHUP(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "yes"})
	path := filepath.Join(w.dir, "config.toml")
	write(t, path, configOf(w.model, "", "a", "b"))
	s := w.serveAs(t, "--config", path, "--listen", "127.0.0.1:0")
	const chat = `{"model":"%","messages":[{"role":"user","content":"Hi"}]}`
	ask := func(model string) (int, string) {
		return fetch(t, http.MethodPost, s.url+"/v1/chat/completions", strings.ReplaceAll(chat, "%", model))
	}
	for _, model := range []string{"a", "b"} {
		if status, body := ask(model); status != http.StatusOK || !strings.Contains(body, `"model":"`+model+`"`) {
			t.Errorf("%s: %d %s", model, status, body)
		}
	}
	write(t, path, configOf(w.model, "", "a", "c"))
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	poll.Until(t, "an answer of c", func() bool {
		status, body := ask("c")
		return status == http.StatusOK && strings.Contains(body, `"model":"c"`)
	})
	if status, body := ask("b"); status != http.StatusNotFound {
		t.Errorf("b: %d %s", status, body)
	}
	s.end(t)
}

// Clients use three models while processes are killed, models are unloaded and the
// settings change: every answer is that of the model that was asked for, and no
// process is left.
func TestServeSeveralUnderChange(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "one two three", TokenDelay: time.Millisecond})
	path := filepath.Join(w.dir, "config.toml")
	names := []string{"a", "b", "c"}
	const settings = "min-residency = \"-1s\"\nhost-memory = 1200" // for two of them
	write(t, path, configOf(w.model, settings, names...))
	s := w.serveAs(t, "--config", path, "--listen", "127.0.0.1:0")
	var answered [3]atomic.Int64
	sum := func() int64 { return answered[0].Load() + answered[1].Load() + answered[2].Load() }
	var changed atomic.Bool // the clients go on until everything was changed
	var clients sync.WaitGroup
	for client := range 8 {
		clients.Go(func() {
			for round := 0; round < 15 || !changed.Load(); round++ {
				n := (client + round) % len(names)
				status, body := fetch(t, http.MethodPost, s.url+"/v1/chat/completions", `{"model":"`+names[n]+`","messages":[{"role":"user","content":"Hi"}]}`)
				switch {
				case status == http.StatusOK && strings.Contains(body, `"model":"`+names[n]+`"`) && strings.Contains(body, "one two three"):
					answered[n].Add(1)
				case status == http.StatusBadGateway, status == http.StatusServiceUnavailable, status == http.StatusTooManyRequests: // its process was killed
				default:
					t.Errorf("%s: %d %s", names[n], status, body)
				}
			}
		})
	}
	finish := func() {
		changed.Store(true)
		clients.Wait()
	}
	defer finish()
	for round := range 6 {
		before := sum()
		poll.Until(t, "answers since the last change", func() bool { return sum() >= before+int64(len(names)) })
		switch round % 3 {
		case 0:
			if pids := childrenOf(t, s.cmd.Process.Pid); len(pids) > 0 {
				_ = syscall.Kill(pids[0], syscall.SIGKILL)
			}
		case 1:
			fetch(t, http.MethodPost, s.url+"/models/unload", `{"model":"b","wait":true}`)
		case 2:
			write(t, path, configOf(w.model, settings+"\n[defaults]\ncontext = "+strconv.Itoa(256*(round+1)), names...))
			if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
	}
	finish()
	for n, name := range names {
		if answered[n].Load() == 0 {
			t.Errorf("%s answered nothing", name)
		}
		fetch(t, http.MethodPost, s.url+"/models/unload", `{"model":"`+name+`","wait":true}`)
	}
	poll.Until(t, "the end of all processes", func() bool { return len(childrenOf(t, s.cmd.Process.Pid)) == 0 })
	s.end(t)
}

// childrenOf returns the processes that a process has started, from any thread.
func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		for field := range strings.FieldsSeq(string(text)) {
			n, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	return pids
}
