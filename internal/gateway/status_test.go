package gateway

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/internal/statuspage"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

var update = flag.Bool("update", false, "write the golden files")

// failedModels are a loaded model and one that has failed.
func failedModels(t *testing.T) *fakeModels {
	t.Helper()
	f := newModels(t, "a", "b")
	a, b := &f.models["a"].status, &f.models["b"].status
	a.Why, a.Context = []string{"all 32 layers fit on the card"}, 4096
	b.State, b.Process = rocm.ModelFailed, supervise.Failed
	log := make([]string, 40)
	for i := range log {
		log[i] = "line"
	}
	b.Cause = fmt.Errorf("load b: %w", &supervise.ExitError{
		Code: 1, State: supervise.Loading, Kind: supervise.ErrModelInvalid, Line: "invalid magic", Remedy: "download it again", Log: append(log, "/secret/path: invalid magic"),
	})
	return f
}

// TestStatusData compares what a client without a key sees on its own machine with a
// golden file.
func TestStatusData(t *testing.T) {
	res := getAs(t, failedModels(t).serve(Options{})+"/status/data", "") //nolint:bodyclose // closed when the test ends
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatalf("%v: %s", err, raw)
	}
	got, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "status.json")
	if *update {
		if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if string(got)+"\n" != string(want) {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestStatusForKeys checks who sees what: without a key nobody sees more than files that
// every release has, and with limits only the models of the key, without paths.
func TestStatusForKeys(t *testing.T) {
	key, sum := NewKey()
	url := failedModels(t).serve(Options{}, Key{Name: "guest", SHA256: sum, Models: []string{"b"}})
	for path, want := range map[string]int{"/status": http.StatusUnauthorized, "/status/status.js": http.StatusOK, "/status/data": http.StatusUnauthorized, "/status/events": http.StatusUnauthorized} {
		if res := getAs(t, url+path, ""); res.StatusCode != want { //nolint:bodyclose // closed when the test ends
			t.Errorf("%s without a key: %d, want %d", path, res.StatusCode, want)
		}
	}
	if policy := getAs(t, url+"/status", key).Header.Get("Content-Security-Policy"); policy != statuspage.Policy { //nolint:bodyclose // closed when the test ends
		t.Errorf("policy %q", policy)
	}
	raw, err := io.ReadAll(getAs(t, url+"/status/data", key).Body) //nolint:bodyclose // closed when the test ends
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Models []struct {
			ID, Cause string
			Failure   any
		}
		Load   bool `json:"can_load"`
		Unload bool `json:"can_unload"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Models) != 1 || got.Models[0].ID != "b" || got.Models[0].Failure != nil || got.Models[0].Cause == "" || !got.Load || got.Unload {
		t.Errorf("a key with limits sees %s", raw)
	}
	if strings.Contains(string(raw), "secret") {
		t.Errorf("a key with limits sees a path: %s", raw)
	}
}

// TestStatusIsForThisMachine checks that without keys the page has the rules of the API.
func TestStatusIsForThisMachine(t *testing.T) {
	url := failedModels(t).serve(Options{})
	for _, path := range []string{"/status", "/status/data"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "attacker.example" // a name that was pointed at this machine
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("%s for another host name: %d", path, res.StatusCode)
		}
	}
}

// TestStatusEvents reads the models from the stream when one of them changes.
func TestStatusEvents(t *testing.T) {
	f := failedModels(t)
	res := getAs(t, f.serve(Options{})+"/status/events", "") //nolint:bodyclose // closed when the test ends
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatalf("content type %q", kind)
	}
	lines := bufio.NewScanner(res.Body)
	for _, want := range []rocm.ModelState{rocm.ModelUnloaded, rocm.ModelLoaded} {
		if err := f.set("a", want); err != nil {
			t.Fatal(err)
		}
		for found := false; !found; {
			if !lines.Scan() {
				t.Fatalf("the stream ended before a was %s: %v", want, lines.Err())
			}
			data, ok := strings.CutPrefix(lines.Text(), "data: ")
			if !ok {
				continue
			}
			var e struct{ Models []modelEntry }
			if err := json.Unmarshal([]byte(data), &e); err != nil {
				t.Fatalf("%v: %s", err, data)
			}
			found = len(e.Models) == 2 && e.Models[0].ID == "a" && e.Models[0].State == want
		}
	}
}
