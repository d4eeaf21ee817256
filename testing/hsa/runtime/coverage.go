//go:build linux && amd64

package main

import (
	"os"
	"path/filepath"
	"sync"
)

// envCoverage names the variable with the files, with colons between them, that get the name of each kernel that ran to its
// end, with its target and its code object, once for each process. Processes may share a file.
const envCoverage = "GOROCM_EMULATED_COVERAGE"

// A recorder writes the names of kernels to files. A nil recorder writes none.
type recorder struct {
	files []*os.File

	mu    sync.Mutex // guards what follows
	known map[string]bool
}

// coverage returns the recorder of the process, or nil.
var coverage = sync.OnceValue(func() *recorder {
	var r *recorder
	for _, path := range filepath.SplitList(os.Getenv(envCoverage)) {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			logf("%s: %v", envCoverage, err)
			continue
		}
		if r == nil {
			r = &recorder{known: map[string]bool{}}
		}
		r.files = append(r.files, f)
	}
	return r
})

// add writes a kernel unless it is known. A line is one call of write, so that lines of several processes do not mix, and
// it is there at once, so that nothing is lost with a process that is killed.
func (r *recorder) add(target, object, kernel string) {
	if r == nil {
		return
	}
	line := target + " " + object + " " + kernel + "\n"
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[line] {
		return
	}
	r.known[line] = true
	for _, f := range r.files {
		if _, err := f.WriteString(line); err != nil {
			logf("%s: %v", envCoverage, err)
		}
	}
}
