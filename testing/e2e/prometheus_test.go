//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// freeAddress returns an address of this machine on which nobody listens.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// promtool runs Debian's promtool.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("promtool", args...).CombinedOutput(); err != nil {
		t.Fatalf("promtool %v: %v (Debian: apt-get install prometheus)\n%s", args, err, out)
	}
}

// startPrometheus starts a Prometheus with the alert rules of the package, which
// scrapes an address, and returns its URL.
func startPrometheus(t *testing.T, scraped string) string {
	t.Helper()
	dir := t.TempDir()
	rules, err := filepath.Abs(filepath.Join("..", "..", "packaging", "assets", "monitoring", "alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", rules)
	promtool(t, "test", "rules", filepath.Join(filepath.Dir(rules), "alerts_test.yml"))
	config := filepath.Join(dir, "prometheus.yml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%q]\nscrape_configs:\n  - job_name: go-rocm\n    static_configs: [{targets: [%q]}]\n", rules, scraped)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "config", config)
	address := freeAddress(t)
	cmd := exec.Command("prometheus", "--config.file="+config, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+address)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (Debian: apt-get install prometheus)", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return "http://" + address
}

// askPrometheus asks Prometheus's API; an error says that it cannot answer yet.
func askPrometheus(api string, data any) error {
	res, err := http.Get(api)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	answer := struct {
		Status string
		Data   any
	}{Data: data}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return errors.New(string(raw))
	}
	return nil
}

// sample returns the first value of a query, as text; "": none.
func sample(base, query string) string {
	var data struct {
		Result []struct{ Value [2]any }
	}
	if err := askPrometheus(base+"/api/v1/query?query="+url.QueryEscape(query), &data); err != nil || len(data.Result) == 0 {
		return ""
	}
	value, _ := data.Result[0].Value[1].(string)
	return value
}

// TestPrometheus lets a real Prometheus scrape a real service, with the alert rules of
// the package. The rules are healthy, nothing fires, and the metrics of the service and
// of its llama-server arrive.
func TestPrometheus(t *testing.T) {
	metrics := freeAddress(t)
	s := serve(t, tiny(t, "llama-spm", 1), "--alias", "tiny", "--metrics-listen", metrics)
	base := startPrometheus(t, metrics)
	poll.Until(t, "Prometheus scrapes the service", func() bool { return sample(base, `up{job="go-rocm"}`) == "1" })
	client := s.client("")
	if _, err := client.Chat.Completions.New(t.Context(), chatParams("tiny")); err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		`gorocm_requests_total{model="tiny",route="/v1/chat/completions",code="200"}`: "1",
		`gorocm_model_process_state{model="tiny",state="ready"}`:                      "1",
		`gorocm_time_to_first_token_seconds_count{model="tiny"}`:                      "1",
		`gorocm_generated_tokens_total{model="tiny"} > bool 0`:                        "1",
		`{__name__="llamacpp:tokens_predicted_total",model="tiny"} > bool 0`:          "1",
	} {
		poll.Until(t, query, func() bool { return sample(base, query) == want })
	}
	var rules struct {
		Groups []struct {
			Rules []struct{ Name, Health, State, LastError string }
		}
	}
	if err := askPrometheus(base+"/api/v1/rules", &rules); err != nil {
		t.Fatal(err)
	}
	if len(rules.Groups) != 1 || len(rules.Groups[0].Rules) < 5 {
		t.Fatalf("the rules are %+v", rules)
	}
	for _, r := range rules.Groups[0].Rules {
		if r.Health != "ok" || r.State != "inactive" {
			t.Errorf("the alert %s is %s and %s: %s", r.Name, r.Health, r.State, r.LastError)
		}
	}
}
