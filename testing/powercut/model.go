// Package powercut finds out what a power failure leaves of the files of a program. It
// records every change that a process makes below a directory, and returns the states
// in which a failure after each change may leave the directory.
//
// POSIX promises little: what fsync(2) was called for is on the disk, a rename is there
// or is not, and everything else may be lost, or come in any order. The states are
// therefore those with the changes that are on the disk for certain, and with none, all,
// or some of the others. A name needs an fsync of its directory, and bytes need one of
// their file. The method is that of ALICE (Pillai and others, "All File Systems Are Not
// Created Equal", OSDI 2014).
//
// Only what a program calls is recorded: a disk that loses what it has confirmed is not
// part of the model.
package powercut

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
)

// object is a file, a directory or a symbolic link, by number. The directory that is
// recorded is object 0.
type object int

type kind int

const (
	create   kind = iota // name in dir becomes a new object
	rename               // name in dir becomes newName in newDir
	remove               // name in dir goes
	write                // bytes of a file
	truncate             // the size of a file
	sync                 // what was done before the operation began, of an object, is on the disk
	mark                 // the program has reached a point
)

// operation is a successful change.
type operation struct {
	kind        kind
	object      object
	dir, newDir object
	name        string // of an entry, or of a mark
	newName     string
	offset      int64 // of a write; the size of a truncate
	data        []byte
	began       int // of a sync: the number of operations before it began
}

// Log is a recording.
type Log struct {
	operations []operation
	kinds      map[object]fs.FileMode // the types; 0: a regular file
	targets    map[object]string      // of symbolic links
}

// Operations returns the number of recorded changes.
func (l *Log) Operations() int { return len(l.operations) }

// State is what a power failure may leave.
type State struct {
	// After is the number of operations before the failure.
	After int
	// Marks are those that the program had reached.
	Marks []string
	// Lost says what became of the changes that were not on the disk for certain.
	Lost string

	log     *Log
	applied []fate
}

// fate is what became of an operation.
type fate int

const (
	lost   fate = iota
	whole       // it is on the disk
	zeroes      // the size is, the bytes are not
)

// States returns the states after every operation; of several writes in a row, after
// the last one. Equal states are returned once for each set of marks.
func (l *Log) States() iter.Seq[*State] {
	return func(yield func(*State) bool) {
		seen := map[string]bool{}
		certainAt := l.certainAt()
		var marks []string
		for after := 0; after <= len(l.operations); after++ {
			if after > 0 && l.operations[after-1].kind == mark {
				marks = append(slices.Clip(marks), l.operations[after-1].name)
			}
			if after > 0 && after < len(l.operations) && l.operations[after-1].kind == write && l.operations[after].kind == write {
				continue
			}
			for _, f := range fates(after) {
				s := &State{After: after, Marks: marks, Lost: f.name, log: l, applied: l.decide(after, certainAt, f.decide)}
				key := fmt.Sprint(len(marks), s.digest())
				if seen[key] {
					continue
				}
				seen[key] = true
				if !yield(s) {
					return
				}
			}
		}
	}
}

// decision is a way to decide about the operations that are not certain.
type decision struct {
	name   string
	decide func(*operation) fate
}

// fates returns the ways that are tried.
func fates(seed int) []decision {
	isName := func(o *operation) bool { return o.kind != write && o.kind != truncate }
	all := func(names, bytes fate) func(*operation) fate {
		return func(o *operation) fate {
			if isName(o) {
				return names
			}
			return bytes
		}
	}
	out := []decision{
		{"everything is lost", all(lost, lost)},
		{"nothing is lost", all(whole, whole)},
		{"bytes are lost", all(whole, lost)},
		{"bytes are zeroes", all(whole, zeroes)},
		{"names are lost", all(lost, whole)},
	}
	for i := range 2 {
		r := rand.New(rand.NewPCG(uint64(seed), uint64(i)))
		out = append(out, decision{fmt.Sprintf("some are lost (%d)", i), func(*operation) fate { return fate(r.IntN(3)) }})
	}
	return out
}

// decide returns the fate of each of the first n operations.
func (l *Log) decide(n int, certainAt []int, uncertain func(*operation) fate) []fate {
	out := make([]fate, n)
	for i := range n {
		o := &l.operations[i]
		if out[i] = whole; certainAt[i] >= n {
			out[i] = uncertain(o)
		}
		if out[i] == zeroes && o.kind != write {
			out[i] = whole
		}
	}
	return out
}

// certainAt returns, for each operation, the number of that after which it is on the
// disk for certain: the first sync that began after it.
func (l *Log) certainAt() []int {
	out := make([]int, len(l.operations))
	for i := range l.operations {
		out[i] = len(l.operations)
		for j := i; j < len(l.operations); j++ {
			if s := &l.operations[j]; l.operations[i].kind == mark || s.kind == sync && i < s.began && l.operations[i].covered(s.object) {
				out[i] = j
				break
			}
		}
	}
	return out
}

// covered reports whether a sync of an object covers the operation.
func (o *operation) covered(by object) bool {
	switch o.kind {
	case write, truncate:
		return by == o.object
	case create, remove:
		return by == o.dir
	case rename:
		return by == o.dir || by == o.newDir
	case sync, mark:
	}
	return false
}

type tree struct {
	entries map[object]map[string]object
	bytes   map[object][]byte
}

// replay applies the operations as far as they are on the disk.
func (s *State) replay() tree {
	t := tree{map[object]map[string]object{}, map[object][]byte{}}
	entry := func(dir object) map[string]object {
		if t.entries[dir] == nil {
			t.entries[dir] = map[string]object{}
		}
		return t.entries[dir]
	}
	for i, f := range s.applied {
		if f == lost {
			continue
		}
		switch o := &s.log.operations[i]; o.kind {
		case create:
			entry(o.dir)[o.name] = o.object
		case rename:
			if entry(o.dir)[o.name] == o.object {
				delete(entry(o.dir), o.name)
			}
			entry(o.newDir)[o.newName] = o.object
		case remove:
			if entry(o.dir)[o.name] == o.object {
				delete(entry(o.dir), o.name)
			}
		case write:
			b := t.bytes[o.object]
			if end := int(o.offset) + len(o.data); end > len(b) {
				b = append(b, make([]byte, end-len(b))...)
			}
			if f == whole {
				copy(b[o.offset:], o.data)
			}
			t.bytes[o.object] = b
		case truncate:
			b := t.bytes[o.object]
			t.bytes[o.object] = append(b[:min(len(b), int(o.offset))], make([]byte, max(0, int(o.offset)-len(b)))...)
		case sync, mark:
		}
	}
	return t
}

// walk calls visit with each object that a name leads to, the names in order.
func (s *State) walk(visit func(path string, mode fs.FileMode, content []byte, target string) error) error {
	t := s.replay()
	var walk func(dir object, path string) error
	walk = func(dir object, path string) error {
		names := make([]string, 0, len(t.entries[dir]))
		for name := range t.entries[dir] {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			o := t.entries[dir][name]
			at := filepath.Join(path, name)
			if err := visit(at, s.log.kinds[o], t.bytes[o], s.log.targets[o]); err != nil {
				return err
			}
			if s.log.kinds[o].IsDir() {
				if err := walk(o, at); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return walk(0, "")
}

func (s *State) digest() string {
	h := sha256.New()
	_ = s.walk(func(path string, mode fs.FileMode, content []byte, target string) error {
		_, err := fmt.Fprintf(h, "%q %v %q %d %x\n", path, mode, target, len(content), content)
		return err
	})
	return string(h.Sum(nil))
}

// Write writes the files of the state into an empty directory.
func (s *State) Write(dir string) error {
	return s.walk(func(path string, mode fs.FileMode, content []byte, target string) error {
		path = filepath.Join(dir, path)
		switch {
		case mode.IsDir():
			return os.Mkdir(path, 0o700)
		case mode&fs.ModeSymlink != 0:
			return os.Symlink(target, path)
		}
		return os.WriteFile(path, content, 0o600)
	})
}
