package speed

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/internal/userdirs"
)

// maxRecord limits a record's file, in bytes; real ones have a few KB.
const maxRecord = 1 << 20

// Store is the directory of records. The zero value uses the user's cache directory.
type Store struct {
	// Dir is the directory; empty: the first writable cache directory of the user.
	Dir string
}

func (s Store) dir() (string, error) {
	if s.Dir != "" {
		return s.Dir, nil
	}
	return userdirs.Writable()
}

// Load returns the record of a key; ok is false if there is none.
func (s Store) Load(k Key) (r Record, ok bool) {
	dir, err := s.dir()
	if err != nil {
		return r, false
	}
	return read(filepath.Join(dir, k.fileName()), k)
}

func read(path string, k Key) (r Record, ok bool) {
	raw, err := regfile.Read(path, maxRecord)
	if err != nil || json.Unmarshal(raw, &r) != nil || r.Key != k {
		return Record{}, false
	}
	return r, true
}

// Save replaces the record of r's key.
func (s Store) Save(r Record) (err error) {
	dir, err := s.dir()
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("store a measurement: %w", err)
	}
	if err := userdirs.WriteFile(filepath.Join(dir, r.fileName()), append(raw, '\n')); err != nil {
		return fmt.Errorf("store a measurement: %w", err)
	}
	return nil
}

// AddFailure stores that a backend failed. It replaces an earlier failure of the
// backend.
func (s Store) AddFailure(k Key, backend, cause string) error {
	r, ok := s.Load(k)
	if !ok {
		r = Record{Key: k}
	}
	r.Failures = slices.DeleteFunc(r.Failures, func(f Failure) bool { return f.Backend == backend })
	r.Failures = append(r.Failures, Failure{Backend: backend, Cause: cause, Time: time.Now().UTC().Truncate(time.Second)})
	return s.Save(r)
}

// List returns all records, newest measurement first.
func (s Store) List() ([]Record, error) {
	dir, err := s.dir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list measurements: %w", err)
	}
	var out []Record
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "speed-") || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		raw, err := regfile.Read(filepath.Join(dir, e.Name()), maxRecord)
		var r Record
		if err == nil && json.Unmarshal(raw, &r) == nil && r.fileName() == e.Name() {
			out = append(out, r)
		}
	}
	slices.SortStableFunc(out, func(a, b Record) int { return b.Time.Compare(a.Time) })
	return out, nil
}
