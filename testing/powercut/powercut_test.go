//go:build linux && amd64

package powercut

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// envProgram has the name of the program for the process that is recorded.
const envProgram = "GOROCM_TEST_POWERCUT"

// programs write the file "f" with the text "new", in the place of none.
var programs = map[string]func(root *os.Root) error{
	"careless": func(root *os.Root) error { return root.WriteFile("f", []byte("new"), 0o600) },
	"renamed without a sync": func(root *os.Root) error {
		return errors.Join(root.WriteFile("t", []byte("new"), 0o600), root.Rename("t", "f"))
	},
	"synced, but not its name": func(root *os.Root) error { return writeSynced(root, "f") },
	"as it should be": func(root *os.Root) error {
		err := errors.Join(writeSynced(root, "t"), root.Rename("t", "f"))
		dir, openErr := root.Open(".")
		if openErr != nil {
			return openErr
		}
		return errors.Join(err, dir.Sync(), dir.Close())
	},
}

func writeSynced(root *os.Root, name string) error {
	f, err := root.Create(name)
	if err != nil {
		return err
	}
	_, err = f.WriteString("new")
	return errors.Join(err, f.Sync(), f.Close())
}

// The states of four programs, of which one is right: where the name is there, the text
// is too, and both are there when the program says so.
func TestStatesOfPrograms(t *testing.T) {
	if name := os.Getenv(envProgram); name != "" {
		root, err := os.OpenRoot(os.Getenv(envProgram + "_DIR"))
		if err == nil {
			err = programs[name](root)
		}
		if err != nil {
			t.Fatal(err)
		}
		Mark("finished")
		return
	}
	for name, want := range map[string][]string{
		"careless":                 {"", "new", "absent", "finished:", "finished:new", "finished:absent"},
		"renamed without a sync":   {"", "new", "absent", "finished:", "finished:new", "finished:absent"},
		"synced, but not its name": {"", "new", "absent", "finished:new", "finished:absent"},
		"as it should be":          {"new", "absent", "finished:new"},
	} {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), envProgram+"="+name, envProgram+"_DIR="+dir)
		log, err := Record(cmd, dir)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := map[string]bool{}
		for s := range log.States() {
			after := t.TempDir()
			if err := s.Write(after); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(filepath.Join(after, "f"))
			found := string(text)
			if err != nil {
				found = "absent"
			} else if found == "\x00\x00\x00" {
				found = ""
			}
			if slices.Contains(s.Marks, "finished") {
				found = "finished:" + found
			}
			got[found] = true
		}
		for _, w := range want {
			if !got[w] {
				t.Errorf("%s: no state is %q", name, w)
			}
			delete(got, w)
		}
		if len(got) > 0 {
			t.Errorf("%s: unexpected states %v", name, got)
		}
	}
}

// What is not modelled is an error, and so is a program that fails.
func TestRecordRejects(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, script := range map[string]string{"a failure": "exit 3", "a hard link": `exec ln "$1/a" "$1/b"`, "another process": `/bin/true; exit 0`} {
		if log, err := Record(exec.CommandContext(t.Context(), "sh", "-c", script, "sh", dir), dir); err == nil {
			t.Errorf("%s: %d operations", name, log.Operations())
		}
	}
}

// A program with several threads is killed and waited for, too.
func TestRecordRejectsAThreadedProgram(t *testing.T) {
	if os.Getenv(envProgram) == "threads" {
		for range 8 {
			go func() {
				runtime.LockOSThread()
				select {}
			}()
		}
		_ = exec.CommandContext(t.Context(), "true").Run() // not modelled
		return
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), envProgram+"=threads")
	if log, err := Record(cmd, t.TempDir()); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("%v, %v", log, err)
	}
}
