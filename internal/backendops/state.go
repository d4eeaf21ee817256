package backendops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// State keeps the results of a run in a file, so that an interrupted run continues.
type State struct {
	Results []Result
	done    map[string]bool // fused operations that are complete
	has     map[Case]bool
	file    *os.File
}

// record is a line of the file: a result, or a fused operation that is complete.
type record struct {
	*Result
	Done string `json:"done,omitempty"`
}

// OpenState opens or creates a file. A last line that is not whole was being written when the run was
// killed; it is removed.
func OpenState(path string) (*State, error) {
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	whole := raw[:bytes.LastIndexByte(raw, '\n')+1]
	s := &State{done: map[string]bool{}, has: map[Case]bool{}}
	for text := range bytes.Lines(whole) {
		var r record
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, fmt.Errorf("%s: %w; remove the file to start anew", path, err)
		}
		s.remember(r)
	}
	if s.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
		return nil, err
	}
	if err := s.file.Truncate(int64(len(whole))); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	if _, err := s.file.Seek(int64(len(whole)), 0); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	return s, nil
}

// Close closes the file.
func (s *State) Close() error { return s.file.Close() }

// Add adds a result.
func (s *State) Add(r Result) error { return s.write(record{Result: &r}) }

// Complete notes that all cases of a fused operation have results, if the unit has all of them.
func (s *State) Complete(u Unit) error {
	if u.Operation == "" || u.Params != "" {
		return nil
	}
	return s.write(record{Done: u.Operation})
}

// Left returns the units that have no results yet, of the listed cases and of the fused operations.
func (s *State) Left(cases []Case) []Unit {
	var left []Case
	for _, c := range cases {
		if !s.has[c] {
			left = append(left, c)
		}
	}
	units := Units(left)
	for _, name := range FusedOperations {
		if !s.done[name] {
			units = append(units, Unit{Operation: name})
		}
	}
	return units
}

func (s *State) write(r record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := s.file.Write(append(text, '\n')); err != nil {
		return err
	}
	s.remember(r)
	return nil
}

func (s *State) remember(r record) {
	if r.Done != "" {
		s.done[r.Done] = true
		return
	}
	if r.Result != nil {
		s.Results = append(s.Results, *r.Result)
		s.has[r.Case] = true
	}
}
