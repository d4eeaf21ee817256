//go:build linux && amd64 && cgo

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// envRecords makes the program of the tests a process that records kernels, and says which.
const envRecords = "GOROCM_TEST_RECORDS"

// kernelsOfEach is how many kernels a process of the test records. Neighbours have half of them in common.
const kernelsOfEach = 2000

func recordedKernel(n int) string { return fmt.Sprintf("_ZL%d%s", n, strings.Repeat("k", n%300)) }

// recordKernels records the kernels of a process with the recorder of the process, from several goroutines, each twice.
func recordKernels(process int) {
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for n := range kernelsOfEach * 2 / 4 {
				coverage().add("gfx1100", "object", recordedKernel(process*kernelsOfEach/2+(g*kernelsOfEach/8+n)%kernelsOfEach))
			}
		})
	}
	wg.Wait()
}

// TestCoverageLosesNoKernel lets several processes record kernels at the same time, some of which they have in common. Then
// the file, which had a line before, has each of them, once for each process, and nothing else. The last process is killed.
func TestCoverageLosesNoKernel(t *testing.T) {
	const processes, before = 6, "gfx1101 object before"
	dir := t.TempDir()
	path, second := filepath.Join(dir, "coverage"), filepath.Join(dir, "second")
	if err := os.WriteFile(path, []byte(before+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{before: 1}
	var running []*exec.Cmd
	for p := range processes {
		for n := range kernelsOfEach {
			want["gfx1100 object "+recordedKernel(p*kernelsOfEach/2+n)]++
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), envRecords+"="+strconv.Itoa(p), envCoverage+"="+path+":"+second)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		running = append(running, cmd)
	}
	for _, cmd := range running {
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 { // each kills itself
			t.Errorf("a process ended with %v", err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := os.ReadFile(second); err != nil || len(other)+len(before)+1 != len(text) {
		t.Errorf("the second file has %d bytes, and the first %d: %v", len(other), len(text), err)
	}
	got := map[string]int{}
	for line := range strings.Lines(string(text)) {
		got[strings.TrimSuffix(line, "\n")]++
	}
	var wrong []string
	for line, n := range want {
		if got[line] != n {
			wrong = append(wrong, fmt.Sprintf("%d times, and not %d: %.40s", got[line], n, line))
		}
		delete(got, line)
	}
	for line := range got {
		wrong = append(wrong, fmt.Sprintf("unknown: %.40s", line))
	}
	slices.Sort(wrong)
	if len(wrong) > 0 {
		t.Errorf("%d kernels are wrong, such as %q", len(wrong), wrong[:min(len(wrong), 5)])
	}
}

// TestCoverageIsNotRecordedByDefault checks that a recorder that is not there is not written to.
func TestCoverageIsNotRecordedByDefault(t *testing.T) {
	if coverage() != nil {
		t.Fatalf("%s is set", envCoverage)
	}
	coverage().add("gfx1100", "", "kernel")
}
