package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
)

// fileSink writes one file. The file is opened at the first call.
type fileSink struct {
	e       *extraction
	file    File
	links   []File
	cut     Extents // what is not written, ascending
	f       *os.File
	hash    *hashSink
	release func()
	written int64 // and not yet told to Progress
	untold  int64 // of what the member takes in the pack
}

func (s *fileSink) open() error {
	if s.f != nil {
		return nil
	}
	if s.e.o.Guard != nil {
		s.release = s.e.o.Guard(s.file)
	}
	f, err := s.e.root.OpenFile(s.file.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		s.unguard()
		return &sinkError{err}
	}
	s.f, s.hash = f, newHashSink()
	return nil
}

func (s *fileSink) unguard() {
	if s.release != nil {
		s.release()
		s.release = nil
	}
}

func (s *fileSink) data(off int64, b []byte) error {
	if err := s.open(); err != nil {
		return err
	}
	if err := s.hash.data(off, b); err != nil {
		return err
	}
	if err := s.write(off, b); err != nil {
		return &sinkError{err}
	}
	// The guard may be a lock that a Progress function needs, so nothing is
	// told while it is held.
	if s.written += int64(len(b)); s.release == nil {
		s.tell()
	}
	return nil
}

// write writes b at off without what is cut: those bytes become zeros, and
// blocks that are nothing but zeros then stay the holes that they are.
func (s *fileSink) write(off int64, b []byte) error {
	if !s.cut.clear(b, off) {
		_, err := s.f.WriteAt(b, off)
		return err
	}
	run := 0 // where the bytes begin that are to be written next
	for at := 0; at < len(b); {
		next := min(at+holeBlock-int((off+int64(at))%holeBlock), len(b))
		if bytes.Equal(b[at:next], zeros[:next-at]) {
			if _, err := s.f.WriteAt(b[run:at], off+int64(run)); err != nil {
				return err
			}
			run = next
		}
		at = next
	}
	_, err := s.f.WriteAt(b[run:], off+int64(run))
	return err
}

func (s *fileSink) tell() {
	s.e.progress(s.written)
	s.untold -= s.written
	s.written = 0
}

func (s *fileSink) done(File) error {
	err := s.open()
	if err == nil {
		err = s.finish()
	}
	if err != nil {
		s.abort()
		return err
	}
	s.written = s.untold // a sparse map is more than the data
	s.tell()
	for _, l := range s.links {
		if err := s.e.link(s.file, l); err != nil {
			return &sinkError{err}
		}
	}
	return nil
}

func (s *fileSink) finish() error {
	if err := s.hash.done(s.file); err != nil {
		return err
	}
	if err := s.f.Truncate(s.file.Size); err != nil { // a hole at the end
		return &sinkError{err}
	}
	if err := s.f.Chmod(os.FileMode(s.file.Mode)); err != nil {
		return &sinkError{err}
	}
	if s.e.o.Sync {
		startWriteback(s.f)
	}
	err := s.f.Close()
	s.f = nil
	s.unguard()
	if err != nil {
		return &sinkError{err}
	}
	return nil
}

func (s *fileSink) abort() {
	if s.f != nil {
		_ = s.f.Close() // the error that led here is the one to report
		s.f = nil
	}
	s.unguard()
}

// link gives a second path the content of the first, by a hard link or, where
// modes differ or links are not to be had, by a copy.
func (e *extraction) link(from, to File) error {
	if from.Mode == to.Mode && e.root.Link(from.Path, to.Path) == nil {
		return nil
	}
	in, err := e.root.Open(from.Path)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if e.o.Guard != nil {
		defer e.o.Guard(to)()
	}
	out, err := e.root.OpenFile(to.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(os.FileMode(to.Mode))
	}
	return errors.Join(err, out.Close())
}

// syncers is the number of files made durable at a time. A journalling file
// system commits for all that wait together, so that many small files cost
// few commits; one after the other each would cost its own.
const syncers = 16

// sync makes all files durable. It opens them anew: an error of writing back
// that nobody has seen yet is reported to whoever syncs first, on any
// descriptor of the file.
func (e *extraction) sync(ctx context.Context) error {
	var paths []string
	for _, files := range e.sel.files {
		for _, f := range files {
			paths = append(paths, f.Path)
		}
	}
	return parallel(ctx, len(paths), syncers, func(_ context.Context, i int) error {
		f, err := e.root.Open(paths[i])
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
