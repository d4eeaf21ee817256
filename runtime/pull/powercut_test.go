//go:build linux && amd64

package pull_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/fakehub"
	"forge.lthn.ai/core/go-rocm/testing/powercut"
)

// envRecorded has the endpoint of the hub for the process that is recorded.
const envRecorded = "GOROCM_TEST_RECORDED"

// The models of the recorded process.
const hubName, splitName = "hf:o/r:Q8_0", "hf:o/r:BF16"

// A power failure at any moment leaves a store whose models are whole: what was pulled
// is there, what was removed is there or not, and the next pull completes the rest.
func TestPowerFailures(t *testing.T) {
	if endpoint := os.Getenv(envRecorded); endpoint != "" {
		pullAndRemove(t, endpoint)
		return
	}
	h := fakehub.Start(t)
	repo(t, h)
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), envRecorded+"="+h.URL, "GOROCM_MODELS="+dir)
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = out, out
	log, err := powercut.Record(cmd, dir)
	if err != nil {
		text, _ := os.ReadFile(out.Name())
		t.Fatalf("%v\n%s", err, text)
	}
	want := map[string][]byte{}
	for _, name := range []string{"m-Q8_0.gguf", "BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf", "mmproj-m-F16.gguf"} {
		raw, err := os.ReadFile(filepath.Join(h.Dir, "o/r", name))
		if err != nil {
			t.Fatal(err)
		}
		want[filepath.Base(name)] = raw
	}
	states, repaired, base := 0, 0, t.TempDir()
	for state := range log.States() {
		states++
		if states%cases.Of(5, 2, 1) != 0 {
			continue
		}
		after := filepath.Join(base, strconv.Itoa(states))
		mustAll(t, os.Mkdir(after, 0o700), state.Write(after))
		repair := rounds() > 1 || states%20 == 0
		checkAfterFailure(t, h, state, after, want, repair)
		if repair {
			repaired++
		}
		if t.Failed() {
			return
		}
		mustAll(t, os.RemoveAll(after))
	}
	if log.Operations() < 200 || states < 300 || repaired < 15 {
		t.Errorf("%d operations, %d states, %d of them repaired", log.Operations(), states, repaired)
	}
	t.Logf("%d operations, %d states, %d of them repaired", log.Operations(), states, repaired)
}

// pullAndRemove is the process that is recorded.
func pullAndRemove(t *testing.T, endpoint string) {
	h := &fakehub.Hub{URL: endpoint}
	s := newStore(t, os.Getenv("GOROCM_MODELS"))
	p := newPuller(t, h)
	p.Client.ChunkSize, p.Client.Connections = 1024, 2
	for _, name := range []string{hubName, splitName} {
		if _, err := pullRef(t, p, s, name); err != nil {
			t.Fatal(err)
		}
		powercut.Mark("pulled " + name)
	}
	powercut.Mark("removing")
	if err := s.Remove(hubName); err != nil {
		t.Fatal(err)
	}
	powercut.Mark("removed")
	if _, err := s.Prune(true); err != nil {
		t.Fatal(err)
	}
	powercut.Mark("pulling again")
	if _, err := pullRef(t, p, s, hubName); err != nil {
		t.Fatal(err)
	}
	powercut.Mark("pulled again")
}

// checkAfterFailure checks the store in dir, and whether a pull completes it.
func checkAfterFailure(t *testing.T, h *fakehub.Hub, state *powercut.State, dir string, want map[string][]byte, repair bool) {
	t.Helper()
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("after operation %d, past %q, where %s:", state.After, state.Marks, state.Lost)
		t.Errorf(format, args...)
	}
	var names []string
	open := modelstore.OpenExisting // it waits for no disk
	if repair {
		open = modelstore.Open
	}
	s, err := open(dir)
	if errors.Is(err, os.ErrNotExist) && len(state.Marks) == 0 {
		return
	}
	if err != nil {
		fail("%v", err)
		return
	}
	defer func() { _ = s.Close() }()
	check := func() {
		t.Helper()
		names = nil
		all, err := s.List()
		if err != nil {
			fail("%v", err)
		}
		for _, r := range all {
			names = append(names, r.Name)
			if err := s.Verify(t.Context(), &r); err != nil {
				fail("%s: %v", r.Name, err)
			}
			for _, f := range r.Files {
				if got, err := os.ReadFile(s.Path(&r, f)); err != nil || !bytes.Equal(got, want[f.Name]) {
					fail("%s: %s is not that of the hub: %v", r.Name, f.Name, err)
				}
			}
		}
	}
	check()
	reached := func(mark string) bool { return slices.Contains(state.Marks, mark) }
	for name, must := range map[string]bool{
		hubName:   reached("pulled "+hubName) && !reached("removing") || reached("pulled again"),
		splitName: reached("pulled " + splitName),
	} {
		if must && !slices.Contains(names, name) {
			fail("%s was pulled, and is gone", name)
		}
	}
	if reached("removed") && !reached("pulling again") && slices.Contains(names, hubName) {
		fail("%s was removed, and is back", hubName)
	}
	if !repair {
		return
	}
	p := newPuller(t, h)
	p.Client.ChunkSize = 1024
	for _, name := range []string{hubName, splitName} {
		if _, err := pullRef(t, p, s, name); err != nil {
			fail("pull again: %v", err)
		}
	}
	check()
	if len(names) != 2 {
		fail("%q after the next pull", names)
	}
}
