package bundle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// DefaultMemory bounds the decoder windows that an extraction holds at a
// time, in bytes: one of 32 MiB beside one of 8 MiB, or five of 8 MiB.
const DefaultMemory = 40 << 20

// ExtractOptions tune Reader.Extract. The zero value extracts all files.
type ExtractOptions struct {
	// Select chooses files; nil takes all. See ForTargets.
	Select func(File) bool
	// Projection writes files with parts as the projection of that target: what other
	// targets alone need of them stays a hole. Empty writes them whole. See
	// Manifest.ProjectionFor.
	Projection gfx.Target
	// Workers is the number of frames decoded at a time; 0 is one a CPU.
	Workers int
	// Memory bounds the windows of all decoders together, in bytes; 0 is
	// DefaultMemory. One decoder always runs, whatever its window.
	Memory int64
	// Sync makes every file durable before Extract returns. Folders are left
	// to the caller, who knows when the last name is in place.
	Sync bool
	// DirMode is the mode of folders that Extract makes; 0 is 0755.
	DirMode os.FileMode
	// Guard is called before a file is opened for writing; what it returns is
	// called after it is closed. Nil guards nothing.
	Guard func(File) (release func())
	// Progress is told the bytes of file data dealt with so far, and the total
	// to come; never by two goroutines at a time. What stays a hole for Only
	// counts too, since it is decoded and hashed.
	Progress func(done, total int64)
}

// Extract writes the selected files below root, which must not hold them yet:
// nothing is overwritten, and no name leads out of root. Each file is hashed
// as it is decoded and gets its mode last, so a file with its final mode is
// complete. Holes stay holes; equal files become hard links where the file
// system has them. On an error the caller removes what is there: Extract
// leaves the files it had finished.
func (r *Reader) Extract(ctx context.Context, root *os.Root, o ExtractOptions) error {
	sel := r.choose(o.Select)
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

// lane is a row of frames that one decoder works through. Lanes share the
// common frames; the first one has those with a large window to itself, so
// that never two large windows are held at a time.
type lane struct {
	window int64
	own    []int
}

// lanes divides the frames, given heaviest first, among as many decoders as
// the memory allows.
func (e *extraction) lanes(order []int, workers int, memory int64) (lanes []lane, common []int) {
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
		lanes = append(lanes, lane{max(large, small), own})
	}
	rest := min((memory-large)/small, int64(workers-len(lanes)), int64(len(common)))
	for range rest {
		lanes = append(lanes, lane{window: small})
	}
	if len(lanes) == 0 {
		lanes = append(lanes, lane{window: small}) // too little memory for any; one must do
	}
	return lanes, common
}

// run decodes the frames, heaviest first, with one decoder a lane.
func (e *extraction) run(ctx context.Context, workers int, memory int64) error {
	frames := e.r.index.Frames
	order := byWeight(len(e.sel.frames), func(i int) int64 { return frames[e.sel.frames[i]].Raw })
	for k, i := range order {
		order[k] = e.sel.frames[i]
	}
	lanes, common := e.lanes(order, workers, memory)
	var next atomic.Int64
	return parallel(ctx, len(lanes), len(lanes), func(ctx context.Context, n int) error {
		d, err := newFrameDecoder(lanes[n].window)
		if err != nil {
			return err
		}
		defer d.close()
		for own := lanes[n].own; ctx.Err() == nil; {
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

// open returns a sink for a member whose content is wanted.
func (e *extraction) open(path string, stored int64) (File, sink) {
	files := e.sel.files[path]
	if len(files) == 0 {
		return File{}, nil
	}
	s := &fileSink{e: e, file: files[0], links: files[1:], untold: stored}
	if s.file.part(e.o.Projection) != nil {
		s.cut = s.file.others(e.o.Projection)
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

// Verify decodes the whole pack and checks every byte of it, without writing
// anything: the files by their digests, the tar headers between them by what the
// manifest says. The error wraps ErrContent and names the first that is damaged in
// each frame, in the order of the frames.
func (r *Reader) Verify(ctx context.Context) error {
	layouts, err := r.layouts()
	if err != nil {
		return err
	}
	damage := make([]string, len(r.index.Frames))
	err = parallel(ctx, len(r.index.Frames), 0, func(ctx context.Context, i int) error {
		f := &r.index.Frames[i]
		d, err := newFrameDecoder(f.decoderWindow())
		if err != nil {
			return err
		}
		defer d.close()
		err = d.decode(ctx, r.section(f), f, &layouts[i], func(path string, stored int64) (File, sink) {
			if i == 0 {
				return File{Path: path, Size: stored}, &byteSink{want: r.canonical}
			}
			file, _ := r.manifest.File(path)
			s := newHashSink()
			s.projections = newProjector(&file)
			return file, s
		})
		if err != nil && errors.Is(err, ErrContent) {
			damage[i] = strings.ReplaceAll(err.Error(), ErrContent.Error()+": ", "") // said once of all
			return nil
		}
		return err
	})
	damage = slices.DeleteFunc(damage, func(s string) bool { return s == "" })
	if err == nil && len(damage) > 0 {
		err = fmt.Errorf("%w: %s", ErrContent, strings.Join(damage, "; "))
	}
	return err
}
