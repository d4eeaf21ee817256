package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// DefaultMemory bounds the decoder windows that an extraction holds at a
// time, in bytes.
const DefaultMemory = 32 << 20

// ExtractOptions tune Reader.Extract. The zero value extracts all files.
type ExtractOptions struct {
	// Select chooses files; nil takes all. See ForTargets.
	Select func(File) bool
	// Workers is the number of frames decoded at a time; 0 is one a CPU.
	Workers int
	// Memory bounds the windows of all decoders together, in bytes; 0 is
	// DefaultMemory. One decoder always runs, whatever its window.
	Memory int64
	// Sync makes every file durable before it counts as written. Folders are
	// left to the caller, who knows when the last name is in place.
	Sync bool
	// DirMode is the mode of folders that Extract makes; 0 is 0755.
	DirMode os.FileMode
	// Guard is called before a file is opened for writing; what it returns is
	// called after it is closed. Nil guards nothing.
	Guard func(File) (release func())
	// Progress is told the bytes of file data written so far, and the total
	// to come; never by two goroutines at a time.
	Progress func(done, total int64)
}

// Extract writes the selected files below root, which must not hold them yet:
// nothing is overwritten, and no name leads out of root. Each file is hashed
// as it is written and gets its mode last, so a file with its final mode is
// whole. Holes stay holes; equal files become hard links where the file
// system has them. On an error the caller removes what is there: Extract
// leaves the files it had finished.
func (r *Reader) Extract(ctx context.Context, root *os.Root, o ExtractOptions) error {
	sel := r.choose(o.Select)
	e := &extraction{r: r, root: root, o: o, sel: sel}
	var window int64 = minWindow
	for _, i := range sel.frames {
		window = max(window, r.index.Frames[i].Window)
	}
	for path := range sel.files {
		f, _ := r.manifest.File(path)
		p := r.bySum[f.SHA256]
		e.total += r.index.Frames[p.frame].Members[p.member].Stored
	}
	if err := e.makeDirs(); err != nil {
		return fmt.Errorf("unpack %s: %w", r.manifest.Name, err)
	}
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	workers := o.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	workers = int(max(1, min(int64(workers), o.Memory/window)))
	if err := e.run(ctx, workers, window); err != nil {
		return fmt.Errorf("unpack %s: %w", r.manifest.Name, err)
	}
	return nil
}

type extraction struct {
	r    *Reader
	root *os.Root
	o    ExtractOptions
	sel  selection

	mu          sync.Mutex
	done, total int64
}

// run decodes the frames, heaviest first, with one decoder a worker.
func (e *extraction) run(ctx context.Context, workers int, window int64) error {
	decoders := make(chan *frameDecoder, workers)
	defer func() {
		close(decoders)
		for d := range decoders {
			d.close()
		}
	}()
	for range min(workers, len(e.sel.frames)) {
		d, err := newFrameDecoder(window)
		if err != nil {
			return err
		}
		decoders <- d
	}
	frames := e.r.index.Frames
	order := byWeight(len(e.sel.frames), func(i int) int64 { return frames[e.sel.frames[i]].Raw })
	return parallel(ctx, len(order), workers, func(ctx context.Context, k int) error {
		d := <-decoders
		defer func() { decoders <- d }()
		f := &frames[e.sel.frames[order[k]]]
		return d.decode(ctx, e.r.section(f), f, e.open)
	})
}

// open returns a sink for a member whose content is wanted.
func (e *extraction) open(path string, stored int64) (File, sink) {
	files := e.sel.files[path]
	if len(files) == 0 {
		return File{}, nil
	}
	return files[0], &fileSink{e: e, file: files[0], links: files[1:], untold: stored}
}

func (e *extraction) progress(n int64) {
	if e.o.Progress == nil || n == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done += n
	e.o.Progress(e.done, e.total)
}

// makeDirs creates the folders of all selected files.
func (e *extraction) makeDirs() error {
	dirs := make(map[string]bool)
	for _, files := range e.sel.files {
		for _, f := range files {
			for d := parentOf(f.Path); d != ""; d = parentOf(d) {
				dirs[d] = true
			}
		}
	}
	mode := e.o.DirMode
	if mode == 0 {
		mode = 0o755
	}
	for _, d := range slices.Sorted(maps.Keys(dirs)) { // parents first
		err := e.root.Mkdir(d, mode)
		if err == nil {
			err = e.root.Chmod(d, mode) // whatever the umask is
		}
		if errors.Is(err, os.ErrExist) {
			st, serr := e.root.Lstat(d)
			if serr != nil || st.IsDir() {
				err = serr
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fileSink writes one file. The file is opened at the first call.
type fileSink struct {
	e       *extraction
	file    File
	links   []File
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
	if _, err := s.f.WriteAt(b, off); err != nil {
		return &sinkError{err}
	}
	if err := s.hash.data(off, b); err != nil {
		return err
	}
	// The guard may be a lock that a Progress function needs, so nothing is
	// told while it is held.
	if s.written += int64(len(b)); s.release == nil {
		s.tell()
	}
	return nil
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
		if err := s.f.Sync(); err != nil {
			return &sinkError{err}
		}
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
	if err == nil && e.o.Sync {
		err = out.Sync()
	}
	return errors.Join(err, out.Close())
}

// WriteManifest writes manifest.json below root.
func (r *Reader) WriteManifest(root *os.Root, sync bool) error {
	f, err := root.OpenFile(ManifestName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	_, err = f.Write(r.canonical)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write manifest: %w", err)
	}
	return nil
}

// Verify decodes the whole pack and checks every file in it, without writing
// anything. The error wraps ErrContent and names what is damaged.
func (r *Reader) Verify(ctx context.Context) error {
	var errs []string
	var mu sync.Mutex
	err := parallel(ctx, len(r.index.Frames)-1, 0, func(ctx context.Context, i int) error {
		f := &r.index.Frames[i+1]
		d, err := newFrameDecoder(max(f.Window, minWindow))
		if err != nil {
			return err
		}
		defer d.close()
		err = d.decode(ctx, r.section(f), f, func(path string, _ int64) (File, sink) {
			file, _ := r.manifest.File(path)
			return file, newHashSink()
		})
		if err != nil && errors.Is(err, ErrContent) {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err.Error())
			return nil
		}
		return err
	})
	if err == nil && len(errs) > 0 {
		err = fmt.Errorf("%w: %s", ErrContent, strings.Join(errs, "; "))
	}
	return err
}
