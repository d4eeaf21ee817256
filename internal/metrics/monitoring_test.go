package metrics

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// monitoringFile returns a file that the packages install.
func monitoringFile(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "packaging", "assets", "monitoring", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestDashboardAndAlertsUseMetricsThatExist looks for each name of a metric in the
// answer of a service, and for the labels that select or group it.
func TestDashboardAndAlertsUseMetricsThatExist(t *testing.T) {
	t.Parallel()
	m, _ := filled(t)
	answer := text(t, m)
	names := regexp.MustCompile(`gorocm_[a-z_]+`)
	existing := names.FindAllString(answer, -1)
	labels := []string{"le", "instance"} // of a histogram, and of Prometheus
	for _, pair := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(answer, -1) {
		labels = append(labels, pair[1])
	}
	selected := regexp.MustCompile(`(?:by|on) \(([a-z, ]+)\)|([a-z_]+)(?:=~|!=|=)\\?"`)
	for file, atLeast := range map[string]int{"dashboard.json": 20, "alerts.yml": 6} {
		content := monitoringFile(t, file)
		used := names.FindAllString(content, -1)
		slices.Sort(used)
		used = slices.Compact(used)
		if len(used) < atLeast {
			t.Errorf("%s uses %d metrics; at least %d are expected", file, len(used), atLeast)
		}
		for _, name := range used {
			if !slices.Contains(existing, name) {
				t.Errorf("%s uses %s, which no service has", file, name)
			}
		}
		for _, found := range selected.FindAllStringSubmatch(content, -1) {
			for label := range strings.SplitSeq(found[1]+found[2], ", ") {
				if label != "" && !slices.Contains(labels, label) {
					t.Errorf("%s uses the label %s, which no metric has: %s", file, label, found[0])
				}
			}
		}
	}
}

// TestDashboardIsWhole checks what Grafana needs to import a dashboard: ids that
// differ, panels that do not overlap, and queries.
func TestDashboardIsWhole(t *testing.T) {
	t.Parallel()
	var d struct {
		Title         string
		SchemaVersion int
		Panels        []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, RefID string }
		}
	}
	if err := json.Unmarshal([]byte(monitoringFile(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("two panels have the id %d", p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is too wide", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				cell := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := cells[cell]; other != "" {
					t.Fatalf("%s and %s overlap", p.Title, other)
				}
				cells[cell] = p.Title
			}
		}
		if p.Type != "row" && (len(p.Targets) == 0 || p.Targets[0].Expr == "" || p.Targets[0].RefID == "") {
			t.Errorf("%s has no query", p.Title)
		}
	}
	if d.Title == "" || d.SchemaVersion == 0 || len(ids) < 15 {
		t.Errorf("the dashboard %q has %d panels", d.Title, len(ids))
	}
}
