//go:build linux && amd64

package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// misconfiguredFiles counts the calls of scriptMisconfigured.
var misconfiguredFiles atomic.Int64

// scriptMisconfigured is "misconfigured STATUS REGEXP LINE...": a configuration file
// of these lines is rejected by "config check" and by "serve --config" with the same
// text, which matches REGEXP, and with STATUS. A model is added where none is named. With
// -short, every fourth file is given to serve; each is two processes.
func scriptMisconfigured(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: misconfigured STATUS REGEXP LINE...")
	}
	lines := args[2:]
	if !strings.HasPrefix(strings.Join(lines, "\n"), "model") {
		lines = append([]string{"model = 'weights/smollm2-135m-Q8_0.gguf'"}, lines...)
	}
	ts.Check(os.WriteFile(ts.MkAbs("c.toml"), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
	pattern := regexp.MustCompile("(?m)" + args[1])
	var checked string
	commands := [][]string{{"config", "check", "c.toml"}, {"serve", "--config", "c.toml"}}
	if testing.Short() && misconfiguredFiles.Add(1)%4 != 0 {
		commands = commands[:1]
	}
	for _, command := range commands {
		scriptStatus(ts, false, append([]string{args[0], "go-rocm"}, command...))
		text := regexp.MustCompile("(?m)^time=.*\n").ReplaceAllString(ts.ReadFile("stderr"), "") // the log
		if !pattern.MatchString(text) {
			ts.Fatalf("%s says %s, want %s", command[0], text, args[1])
		}
		for line := range strings.Lines(text) {
			seen := map[string]bool{}
			for _, word := range regexp.MustCompile(`/[^\s:;,()"]+`).FindAllString(line, -1) {
				if filepath.IsAbs(word) && seen[word] {
					ts.Fatalf("%s names %s twice: %s", command[0], word, line)
				}
				seen[word] = true
			}
		}
		if checked != "" && text != checked {
			ts.Fatalf("%s says %s, but config check %s", command[0], text, checked)
		}
		checked = text
	}
}
