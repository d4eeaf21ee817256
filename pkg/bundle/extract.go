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
	"sync"
	"sync/atomic"

	"forge.lthn.ai/core/go-rocm/internal/fsync"
	"forge.lthn.ai/core/go-rocm/internal/sparse"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// DefaultMemory limits the decoder windows of an extraction, in bytes: one of
// 32 MiB and one of 8 MiB, or five of 8 MiB.
const DefaultMemory = 40 << 20

// ExtractOptions tune Reader.Extract. The zero value extracts all files.
type ExtractOptions struct {
	// Select chooses files; nil selects all. See ForTargets.
	Select func(File) bool
	// Projection is the target for which files with parts are written: the code
	// of other targets stays a hole. Empty writes whole files. See
	// Manifest.ProjectionFor.
	Projection gfx.Target
	// Workers is the number of frames decoded at a time; 0 means one for each CPU.
	Workers int
	// Memory limits the windows of all decoders together, in bytes; 0 means
	// DefaultMemory. One decoder always runs, whatever its window.
	Memory int64
	// Sync syncs every file before Extract returns. Directories are left to the
	// caller, which may add more names to them.
	Sync bool
	// DirMode is the mode of directories that Extract creates; 0 means 0755.
	DirMode os.FileMode
	// Guard, if not nil, is called before a file is opened for writing. Extract
	// calls release after closing the file.
	Guard func(File) (release func())
	// Progress, if not nil, is called with the bytes of file data processed so
	// far and in total, never by two goroutines at a time. Holes left for
	// Projection count too, since they are decoded and hashed.
	Progress func(done, total int64)
}

// Extract writes the selected files below root. It overwrites nothing, and no
// name can escape root. Each file is hashed while it is decoded. Its mode is set
// last, so a file with its final mode is complete. Holes stay holes; equal files
// become hard links if the file system supports them. After an error, finished
// files remain for the caller to remove.
func (r *Reader) Extract(ctx context.Context, root *os.Root, o ExtractOptions) error {
	sel := r.selectFiles(o.Select)
	e := &extraction{r: r, root: root, o: o, sel: sel}
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
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	err := e.run(ctx, o.Workers, o.Memory)
	if err == nil && o.Sync {
		err = e.sync(ctx)
	}
	if err != nil {
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

// worker is a decoder with the frames that it alone decodes. All workers share
// the other frames. The first worker owns all frames with a large window, so
// that at most one large window is allocated at a time.
type worker struct {
	window int64
	own    []int
}

// planWorkers divides the frames, given heaviest first, among as many decoders
// as the memory allows.
func (e *extraction) planWorkers(order []int, limit int, memory int64) (workers []worker, common []int) {
	var large, small int64 = 0, minWindow
	var own []int
	for _, i := range order {
		if w := e.r.index.Frames[i].Window; w > memory/2 {
			own, large = append(own, i), max(large, w)
		} else {
			common, small = append(common, i), max(small, w)
		}
	}
	if len(own) > 0 {
		workers = append(workers, worker{max(large, small), own})
	}
	rest := min((memory-large)/small, int64(limit-len(workers)), int64(len(common)))
	for range rest {
		workers = append(workers, worker{window: small})
	}
	if len(workers) == 0 {
		workers = append(workers, worker{window: small}) // the memory is too small even for one; one must run
	}
	return workers, common
}

// run decodes the frames, heaviest first, with one decoder for each worker.
func (e *extraction) run(ctx context.Context, limit int, memory int64) error {
	frames := e.r.index.Frames
	order := heaviestFirst(len(e.sel.frames), func(i int) int64 { return frames[e.sel.frames[i]].Raw })
	for k, i := range order {
		order[k] = e.sel.frames[i]
	}
	workers, common := e.planWorkers(order, limit, memory)
	var next atomic.Int64
	return forEach(ctx, len(workers), len(workers), func(ctx context.Context, n int) error {
		d, err := newFrameDecoder(workers[n].window)
		if err != nil {
			return err
		}
		defer d.close()
		for own := workers[n].own; ctx.Err() == nil; {
			var i int
			if len(own) > 0 {
				i, own = own[0], own[1:]
			} else if k := int(next.Add(1)) - 1; k < len(common) {
				i = common[k]
			} else {
				return nil
			}
			if err := d.decode(ctx, e.r.section(&frames[i]), &frames[i], nil, e.open); err != nil {
				return err
			}
		}
		return context.Cause(ctx)
	})
}

// open returns a sink for a member with selected content, else nil.
func (e *extraction) open(path string, stored int64) (File, sink) {
	files := e.sel.files[path]
	if len(files) == 0 {
		return File{}, nil
	}
	s := &fileSink{e: e, file: files[0], links: files[1:], unreported: stored}
	if s.file.partFor(e.o.Projection) != nil {
		s.skip = s.file.otherExtents(e.o.Projection)
	}
	return files[0], s
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

// makeDirs creates the directories of all selected files.
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
			err = e.root.Chmod(d, mode) // regardless of the umask
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

// fileSink writes one file. The first call opens it.
type fileSink struct {
	e          *extraction
	file       File
	links      []File
	skip       Extents // not written, ascending
	f          *os.File
	hash       *hashSink
	release    func()
	written    int64 // bytes written since the last report
	unreported int64 // bytes of the member in the pack that are not reported yet
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
		return &writeError{err}
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
		return &writeError{err}
	}
	// The guard may be a lock that a Progress function needs, so nothing is
	// reported while it is held.
	if s.written += int64(len(b)); s.release == nil {
		s.report()
	}
	return nil
}

// write writes b at off, except for the extents to skip: those bytes become
// zero, and blocks of zeros stay holes.
func (s *fileSink) write(off int64, b []byte) error {
	if s.skip.clear(b, off) {
		return sparse.WriteAt(s.f, b, off)
	}
	_, err := s.f.WriteAt(b, off)
	return err
}

func (s *fileSink) report() {
	s.e.progress(s.written)
	s.unreported -= s.written
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
	s.written = s.unreported // includes the sparse map
	s.report()
	for _, l := range s.links {
		if err := s.e.link(s.file, l); err != nil {
			return &writeError{err}
		}
	}
	return nil
}

func (s *fileSink) finish() error {
	if err := s.hash.done(s.file); err != nil {
		return err
	}
	if err := s.f.Truncate(s.file.Size); err != nil { // a hole at the end
		return &writeError{err}
	}
	if err := s.f.Chmod(os.FileMode(s.file.Mode)); err != nil {
		return &writeError{err}
	}
	if s.e.o.Sync {
		fsync.StartWriteback(s.f)
	}
	err := s.f.Close()
	s.f = nil
	s.unguard()
	if err != nil {
		return &writeError{err}
	}
	return nil
}

func (s *fileSink) abort() {
	if s.f != nil {
		_ = s.f.Close() // the caller reports the first error
		s.f = nil
	}
	s.unguard()
}

// link creates to with the content of from, as a hard link or, if the modes
// differ or the file system has no links, as a copy.
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

// syncWorkers is the number of files synced at a time. A journalling file system
// commits once for all that wait, so many small files need few commits; one after
// another, each would need its own.
const syncWorkers = 16

// sync syncs all files. It reopens them, which loses no error: the kernel reports
// a failed writeback that nobody has seen yet to the first fsync, on any
// descriptor of the file.
func (e *extraction) sync(ctx context.Context) error {
	var paths []string
	for _, files := range e.sel.files {
		for _, f := range files {
			paths = append(paths, f.Path)
		}
	}
	return forEach(ctx, len(paths), syncWorkers, func(_ context.Context, i int) error {
		f, err := e.root.Open(paths[i])
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
