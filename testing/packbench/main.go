// Command packbench measures encoders for packed bundles on a real bundle directory: the
// size, the time to pack, and the time and memory to unpack. The sizes and the peak
// memory in docs/pack.md are from its tables.
//
//	go run ./testing/packbench -dir BUNDLE -encoders go-best,zstd-19 -windows 23,24
//
// Each unpack runs in a process of its own, so that its peak memory is the figure of the
// kernel (VmHWM), and writes to a new directory below -work. The zstd-N rows need the
// zstd program.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "packbench:", err)
		os.Exit(1)
	}
}

type config struct {
	dir, work, encoders, windows, targets, unpack string
	frame                                         int64
	memory                                        int64
	sync, keep                                    bool
}

func run(ctx context.Context, args []string) error {
	var c config
	fl := flag.NewFlagSet("packbench", flag.ContinueOnError)
	fl.StringVar(&c.dir, "dir", "", "bundle directory; without a manifest.json a manifest is generated")
	fl.StringVar(&c.work, "work", os.TempDir(), "directory for packs and unpacked bundles")
	fl.StringVar(&c.encoders, "encoders", "go-default,go-better,go-best,zstd-19", "comma list: go-fastest, go-default, go-better, go-best, zstd-LEVEL")
	fl.StringVar(&c.windows, "windows", "23,24", "comma list of window logarithms; auto is bundle.WindowLog")
	fl.StringVar(&c.targets, "targets", "", "GPU targets of the bundle, when it has no manifest.json")
	fl.Int64Var(&c.frame, "frame", 0, "size of a frame's data in MiB, 0 for the default")
	fl.Int64Var(&c.memory, "memory", 0, "decoder windows in MiB, 0 for the default")
	fl.BoolVar(&c.sync, "sync", false, "make unpacked files durable")
	fl.BoolVar(&c.keep, "keep", false, "keep the packs in -work")
	fl.StringVar(&c.unpack, "unpack", "", "unpack this pack into -dir and print the figures (for the child process)")
	if err := fl.Parse(args); err != nil {
		return err
	}
	if c.unpack != "" {
		return unpack(ctx, c)
	}
	if c.dir == "" {
		return errors.New("-dir is missing")
	}
	return table(ctx, c)
}

func table(ctx context.Context, c config) error {
	m, err := manifest(c)
	if err != nil {
		return err
	}
	fmt.Printf("%d files, %.1f MB\n\n", len(m.Files), mb(m.Size()))
	fmt.Println("| encoder | window log, largest MiB | frames | packed MB | pack CPU s | unpack s | unpack CPU s | peak memory MiB |")
	fmt.Println("|---|---:|---:|---:|---:|---:|---:|---:|")
	for name := range strings.SplitSeq(c.encoders, ",") {
		for w := range strings.SplitSeq(c.windows, ",") {
			enc, err := encoder(name, w)
			if err != nil {
				return err
			}
			if err := row(ctx, c, m, name, w, enc); err != nil {
				return err
			}
		}
	}
	return nil
}

func manifest(c config) (*bundle.Manifest, error) {
	if m, err := bundle.ReadManifest(c.dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return m, err
	}
	targets, err := gfx.ParseList(c.targets)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return nil, err
	}
	m := bundle.Manifest{Name: "llama-measured", Variant: "measured", Flavour: bundle.FlavourSystem, Version: "0", Targets: targets}
	for _, e := range entries { // any program can be the entry
		if st, err := e.Info(); err == nil && st.Mode().IsRegular() && st.Mode()&0o100 != 0 {
			m.Entry.Program = e.Name()
		}
	}
	return bundle.Build(c.dir, m)
}

func encoder(name, window string) (bundle.Encoder, error) {
	windowLog := bundle.WindowLog
	if window != "auto" {
		n, err := strconv.Atoi(window)
		if err != nil || n < 10 || n > 27 {
			return nil, fmt.Errorf("window logarithm %q: want 10 to 27 or auto", window)
		}
		windowLog = func(int64) int { return n }
	}
	levels := map[string]zstd.EncoderLevel{
		"go-fastest": zstd.SpeedFastest, "go-default": zstd.SpeedDefault,
		"go-better": zstd.SpeedBetterCompression, "go-best": zstd.SpeedBestCompression,
	}
	if l, ok := levels[name]; ok {
		return func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
			return bundle.GoEncoder(l, 1<<windowLog(size))(ctx, dst, src, size)
		}, nil
	}
	level, ok := strings.CutPrefix(name, "zstd-")
	n, err := strconv.Atoi(level)
	if !ok || err != nil || n < 1 || n > 22 {
		return nil, fmt.Errorf("encoder %q: want go-fastest, go-default, go-better, go-best or zstd-1 to zstd-22", name)
	}
	return bundle.CommandEncoder(func(size int64) []string {
		return bundle.ZstdCommand(n, windowLog(size))(size)
	}), nil
}

func row(ctx context.Context, c config, m *bundle.Manifest, name, window string, enc bundle.Encoder) (err error) {
	file := filepath.Join(c.work, fmt.Sprintf("%s-w%s.tar.zst", name, window))
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if !c.keep {
		defer func() { err = errors.Join(err, os.Remove(file)) }()
	}
	before, err := cpuSeconds()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	st, err := bundle.Pack(ctx, f, c.dir, m, bundle.PackOptions{Encoder: enc, FrameSize: c.frame << 20})
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	after, err := cpuSeconds()
	if err != nil {
		return err
	}
	out, err := os.MkdirTemp(c.work, "unpacked-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-unpack", file, "-dir", out, "-memory", strconv.FormatInt(c.memory, 10), "-sync="+strconv.FormatBool(c.sync))
	cmd.Stderr = os.Stderr
	res, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	var took float64
	var peak int64
	if _, err := fmt.Sscan(string(res), &took, &peak); err != nil {
		return fmt.Errorf("unpack said %q: %w", res, err)
	}
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	var largest int64
	for _, f := range st.Frames {
		largest = max(largest, f.Window)
	}
	fmt.Printf("| %s | %s, %d | %d | %.2f | %.0f | %.2f | %.2f | %.1f |\n",
		name, window, largest>>20, len(st.Frames), mb(st.Packed), after-before, took, cpu.Seconds(), float64(peak)/1024)
	return nil
}

func mb(n int64) float64 { return float64(n) / 1e6 }

// cpuSeconds returns the processor time of this process and of its exited children. It
// depends less on the load of the machine than the wall-clock time.
func cpuSeconds() (float64, error) {
	var sum float64
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err != nil {
			return 0, fmt.Errorf("getrusage: %w", err)
		}
		sum += float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
	}
	return sum, nil
}

// unpack prints how many seconds it took and by how many KiB the peak of the resident
// memory rose.
func unpack(ctx context.Context, c config) error {
	before, err := peakKiB()
	if err != nil {
		return err
	}
	began := time.Now()
	p, err := bundle.OpenFile(c.unpack)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return errors.Join(err, p.Close())
	}
	err = p.Extract(ctx, root, bundle.ExtractOptions{Memory: c.memory << 20, Sync: c.sync})
	took := time.Since(began)
	after, perr := peakKiB()
	fmt.Println(took.Seconds(), after-before)
	return errors.Join(err, perr, root.Close(), p.Close())
}

// peakKiB returns VmHWM of this process, see proc_pid_status(5).
func peakKiB() (int64, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "VmHWM:"); ok {
			return strconv.ParseInt(strings.Fields(v)[0], 10, 64)
		}
	}
	return 0, errors.New("no VmHWM in /proc/self/status")
}
