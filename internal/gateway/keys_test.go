package gateway

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

func TestKeysAreChecked(t *testing.T) {
	t.Parallel()
	_, sum := NewKey()
	good := Key{Name: "a", SHA256: sum, Models: []string{"qwen3-*"}, Priority: "high"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Key){
		"no name":  func(k *Key) { k.Name = "" },
		"short":    func(k *Key) { k.SHA256 = sum[2:] },
		"no hex":   func(k *Key) { k.SHA256 = "x" + sum[1:] },
		"negative": func(k *Key) { k.RequestsPerMinute = -1 },
		"tokens":   func(k *Key) { k.TokensPerDay = -1 },
		"at once":  func(k *Key) { k.Concurrent = -1 },
		"priority": func(k *Key) { k.Priority = "urgent" },
		"pattern":  func(k *Key) { k.Models = []string{"a["} },
		"empty":    func(k *Key) { k.Models = []string{""} },
	} {
		k := good
		change(&k)
		if k.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	other := good
	other.Name = "b"
	for name, keys := range map[string][]Key{"the same name": {good, good}, "the same key": {good, other}} {
		if _, err := (CredentialFiles{Named: keys}).load(slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestNewKeysAreAccepted(t *testing.T) {
	t.Parallel()
	key, sum := NewKey()
	if err := checkKey(key); err != nil {
		t.Error(err)
	}
	c, err := CredentialFiles{Key: "plain", Named: []Key{{Name: "a", SHA256: strings.ToUpper(sum)}}}.load(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if named, ok := c.find(key); !ok || named.named == nil || named.named.Name != "a" {
		t.Errorf("%v, %t", named, ok)
	}
	if named, ok := c.find("plain"); !ok || named.named != nil {
		t.Errorf("plain: %v, %t", named, ok)
	}
	if _, ok := c.find(sum); ok {
		t.Error("the digest is accepted as a key")
	}
}

func TestKeysAllowModels(t *testing.T) {
	t.Parallel()
	m := rocm.ModelStatus{Name: "org/qwen3-8b", Aliases: []string{"gpt-4o"}}
	for pattern, want := range map[string]bool{
		"*": true, "org/*": true, "*qwen3*": true, "org/qwen3-?b": true, "gpt-4o": true, "gpt": false, "qwen3-*": false, "ORG/*": false,
	} {
		if k := (&Key{Models: []string{"x", pattern}}); k.allows(m) != want {
			t.Errorf("%s: %t", pattern, !want)
		}
	}
	if !(&Key{}).allows(m) || !(*Key)(nil).allows(m) {
		t.Error("a key without a list may not use the model")
	}
}

func TestKeysSeeTheirModelsOnly(t *testing.T) {
	t.Parallel()
	key, sum := NewKey()
	f := newModels(t, "mine", "mint", "other")
	url := f.serve(Options{}, Key{Name: "alice", SHA256: sum, Models: []string{"min*"}})
	ask := func(method, path, body string) response {
		return send(t, method, url+path, body, "Authorization", "Bearer "+key)
	}
	if got := ask("GET", "/v1/models", ""); strings.Contains(got.body, "other") || !strings.Contains(got.body, "mint") {
		t.Errorf("list: %s", got.body)
	}
	for body, status := range map[string]int{`{"model":"mine"}`: 200, `{"model":"other"}`: 404, `{"model":"othe"}`: 404} {
		got := ask("POST", "/completion", body)
		if got.status != status || strings.Contains(got.body, "near") {
			t.Errorf("%s: %d %s, want %d", body, got.status, got.body, status)
		}
	}
	if got := ask("POST", "/models/unload", `{"model":"mine"}`); got.status != 403 {
		t.Errorf("unload: %d %s", got.status, got.body)
	}
}

func TestRequestsPerMinute(t *testing.T) {
	t.Parallel()
	l := newKeyLimits(openUsage("", slog.New(slog.DiscardHandler)))
	k := &Key{Name: "a", RequestsPerMinute: 60}
	now := time.Date(2026, 11, 29, 0, 0, 0, 0, time.UTC)
	for range 60 {
		if err := l.acquire(k, now); err != nil {
			t.Fatal(err)
		}
		l.release(k)
	}
	err := l.acquire(k, now)
	if e := (*limitError)(nil); !errors.As(err, &e) || e.wait != time.Second || !strings.Contains(err.Error(), `60 requests per minute for the key "a"`) || !strings.Contains(err.Error(), "retry in 1s") {
		t.Errorf("%v", err)
	}
	if err := l.acquire(k, now.Add(time.Second)); err != nil {
		t.Errorf("a second later: %v", err)
	}
	if err := l.acquire(k, now.Add(time.Second)); err == nil {
		t.Error("two a second")
	}
	k.RequestsPerMinute = 6000 // the settings were read again
	if err := l.acquire(k, now.Add(time.Second)); err != nil {
		t.Error(err)
	}
	k.RequestsPerMinute = 0
	for range 10000 {
		if err := l.acquire(k, now.Add(time.Second)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTokensPerDay(t *testing.T) {
	t.Parallel()
	l := newKeyLimits(openUsage("", slog.New(slog.DiscardHandler)))
	k := &Key{Name: "a", TokensPerDay: 100, RequestsPerMinute: 1}
	now := time.Date(2026, 11, 29, 23, 0, 0, 0, time.UTC)
	l.usage.add("a", 100, now)
	l.usage.add("b", 1, now)
	for range 2 { // what is rejected does not count for the rate
		err := l.acquire(k, now)
		if e := (*limitError)(nil); !errors.As(err, &e) || e.wait != time.Hour || !e.long || !strings.Contains(err.Error(), "100 tokens per day") {
			t.Errorf("%v", err)
		}
	}
	if err := l.acquire(k, now.Add(time.Hour)); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

func TestLimitsOfKeysAreAnswered429(t *testing.T) {
	t.Parallel()
	slowKey, slowSum := NewKey()
	busyKey, busySum := NewKey()
	paidKey, paidSum := NewKey()
	f := newModels(t, "m")
	arrived, release := make(chan struct{}), make(chan struct{})
	f.models["m"].backend = newBackend(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/completion" {
			arrived <- struct{}{}
			<-release
		}
		_, _ = w.Write([]byte(`{"usage":{"prompt_tokens":40,"completion_tokens":2,"total_tokens":42}}`))
	}))
	usage := filepath.Join(t.TempDir(), "usage.json")
	url := f.serve(Options{UsageFile: usage},
		Key{Name: "slow", SHA256: slowSum, RequestsPerMinute: 1},
		Key{Name: "busy", SHA256: busySum, Concurrent: 1},
		Key{Name: "paid", SHA256: paidSum, TokensPerDay: 50})
	ask := func(key, path string) response {
		return send(t, "POST", url+path, `{"prompt":"x"}`, "Authorization", "Bearer "+key)
	}
	check := func(got response, status int, says string) {
		t.Helper()
		if got.status != status || !strings.Contains(got.body, says) || status == 429 && got.header.Get("Retry-After") == "" {
			t.Errorf("%d %v %s, want %d %s", got.status, got.header, got.body, status, says)
		}
	}
	check(ask(slowKey, "/v1/completions"), 200, "")
	check(ask(slowKey, "/v1/completions"), 429, "1 requests per minute")
	check(send(t, "GET", url+"/v1/models", "", "Authorization", "Bearer "+slowKey), 200, "")

	var done sync.WaitGroup
	done.Go(func() { check(ask(busyKey, "/completion"), 200, "") })
	<-arrived
	check(ask(busyKey, "/v1/completions"), 429, "1 requests at once")
	close(release)
	done.Wait()
	// The first one ends after its client has the answer.
	poll.Until(t, "the end of the first request", func() bool { return ask(busyKey, "/v1/completions").status != 429 })

	check(ask(paidKey, "/v1/completions"), 200, "")
	poll.Until(t, "the count of the tokens", func() bool { // as well after the client has the answer
		raw, err := os.ReadFile(usage)
		return err == nil && strings.Contains(string(raw), `"paid":42`)
	})
	check(ask(paidKey, "/v1/completions"), 200, "")
	for {
		got := ask(paidKey, "/v1/completions")
		if got.status == 429 {
			check(got, 429, "50 tokens per day")
			if got.header.Get("X-Should-Retry") != "false" {
				t.Errorf("%v", got.header)
			}
			break
		}
	}
}

func TestUsedTokensSurviveARestart(t *testing.T) {
	t.Parallel()
	path, log := filepath.Join(t.TempDir(), "usage.json"), slog.New(slog.DiscardHandler)
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	u := openUsage(path, log)
	var done sync.WaitGroup
	for range 100 {
		done.Go(func() { u.add("a", 3, now) })
	}
	done.Wait()
	u.close()
	u.add("a", 1, now) // too late, and harmless
	u = openUsage(path, log)
	defer u.close()
	if got := u.used("a", now); got != 300 {
		t.Errorf("%d tokens", got)
	}
	if got := u.used("a", now.Add(12*time.Hour)); got != 0 {
		t.Errorf("the next day %d tokens", got)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) != 1 {
		t.Errorf("left %v, %v", entries, err)
	}
}

func TestDamagedUsageFilesAreReplaced(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)
	for name, content := range map[string]string{
		"empty": "", "half": `{"version":1,"day":"2026-11-29","tok`, "version": `{"version":2,"day":"2026-11-29","tokens":{"a":5}}`,
		"negative": `{"version":1,"day":"2026-11-29","tokens":{"a":-5}}`, "type": `[]`,
	} {
		var said strings.Builder
		path := writeFile(t, "usage.json", content)
		u := openUsage(path, slog.New(slog.NewTextHandler(&said, nil)))
		if got := u.used("a", now); got != 0 || !strings.Contains(said.String(), "counted from zero") {
			t.Errorf("%s: %d tokens, said %q", name, got, said.String())
		}
		u.add("a", 7, now)
		u.close()
		f, err := readUsage(path)
		if err != nil || f.Tokens["a"] != 7 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

// The request of the highest priority goes first; one that has waited long has
// risen.
func TestQueueFollowsPriority(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(1, 10, 10)
		if err := q.acquire(t.Context(), "x", 0); err != nil {
			t.Fatal(err)
		}
		got := make(chan string, 10)
		wait := func(client string, priority int) {
			go func() {
				if q.acquire(t.Context(), client, priority) == nil {
					got <- client
				}
			}()
			synctest.Wait()
		}
		wait("low", -1)
		time.Sleep(3 * ageStep)
		wait("normal", 0)
		wait("high", 1)
		wait("higher", 2)
		last := "x"
		var order []string
		for range 4 {
			q.release(last)
			last = <-got
			order = append(order, last)
		}
		q.release(last)
		if strings.Join(order, " ") != "low higher high normal" {
			t.Errorf("%v", order)
		}
	})
}
