//go:build linux && amd64

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
)

// projector writes a tiny projector into the world.
func (w *world) projector(t *testing.T) string {
	t.Helper()
	b, err := ggufgen.Projector(ggufgen.ProjectorOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(w.dir, "mmproj.gguf")
	if err := b.WriteFile(name); err != nil {
		t.Fatal(err)
	}
	return name
}

// file writes a file into the world.
func (w *world) file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRunShowsImages(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	mmproj := w.projector(t)
	red, blue := w.file(t, "red.png", imagegen.PNG(16, 1)), w.file(t, "blue.png", imagegen.PNG(16, 2))
	run := func(args ...string) string {
		t.Helper()
		out, errs, status := w.output(t, "", append([]string{"run", w.model, "--temperature", "0", "-n", "20", "-p", "What?"}, args...)...)
		if status != 0 {
			t.Fatalf("%v: status %d, %s", args, status, errs)
		}
		return out
	}
	for _, raw := range []string{"--raw=false", "--raw"} {
		one, two := run("--mmproj", mmproj, "--image", red, raw), run("--mmproj", mmproj, "--image", blue, raw)
		none, both := run(raw), run("--mmproj", mmproj, "--image", red, "--image", blue, raw)
		if one == two || one == none || one == both {
			t.Errorf("%s: %q, other image %q, both %q, none %q", raw, one, two, both, none)
		}
	}
}

func TestImageMistakesAreExplained(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	mmproj, red := w.projector(t), w.file(t, "red.png", imagegen.PNG(16, 1))
	noise := w.file(t, "noise.png", []byte("noise"))
	for name, tt := range map[string]struct {
		args   []string
		status int
		says   string
	}{
		"no projector":     {[]string{"--image", red}, exitUsage, "--mmproj"},
		"no file":          {[]string{"--image", red + "x", "--mmproj", mmproj}, exitFailure, "no such file"},
		"noise":            {[]string{"--image", noise, "--mmproj", mmproj}, exitFailure, "Failed to load image"},
		"not a projector":  {[]string{"--image", red, "--mmproj", w.model}, exitFailure, "no projector"},
		"too many markers": {[]string{"--image", red, "--mmproj", mmproj, "-p", "<__media__><__media__>"}, exitFailure, "2 markers"},
	} {
		_, errs, status := w.output(t, "", append([]string{"run", w.model, "-p", "x"}, tt.args...)...)
		if status != tt.status || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: status %d, want %d that says %q: %s", name, status, tt.status, tt.says, errs)
		}
	}
	if _, err := readBounded(red, 10); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a large file: %v", err)
	}
}

// A chat goes on after an image that cannot be read.
func TestChatShowsImages(t *testing.T) {
	w := newWorld(t, fakellama.Script{Reply: "an answer"})
	red, noise := w.file(t, "red.png", imagegen.PNG(16, 1)), w.file(t, "noise.png", []byte("noise"))
	term := w.terminal(t, "run", w.model, "--mmproj", w.projector(t), "--stats")
	term.expect("> ")
	term.say("/info\r")
	term.expect("images: true")
	term.say("/image " + noise + "x\r")
	term.expect("no such file")
	term.say("/image " + noise + "\r")
	term.expect("your next message")
	term.say("What is this?\r")
	term.expect("Failed to load image")
	term.say("/image " + red + "\r")
	term.expect("your next message")
	term.say("And this?\r")
	term.expect("an answer\r\n")
	term.end()
}
