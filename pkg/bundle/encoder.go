package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/internal/ctxio"
)

// MaxWindow is the largest zstd window of a pack in bytes: 2^27, what the
// zstd command opens without an option (ZSTD_WINDOWLOG_LIMIT_DEFAULT).
const MaxWindow = 128 << 20

// DefaultWindow is the window of a pack in bytes. A decoder holds one window
// for each frame it decodes at a time; see docs/pack.md for sizes and memory
// by window.
const DefaultWindow = 8 << 20

// An Encoder compresses size bytes from src into exactly one zstd frame. It
// must be deterministic: equal input gives equal output. It may be called from
// several goroutines at once.
type Encoder func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error

// GoEncoder returns an Encoder that needs no program: klauspost/compress at
// that level (zstd.SpeedDefault … zstd.SpeedBestCompression) and window.
func GoEncoder(level zstd.EncoderLevel, window int) Encoder {
	return func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
		enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithWindowSize(window),
			zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(true), zstd.WithLowerEncoderMem(true))
		if err != nil {
			return fmt.Errorf("zstd encoder: %w", err)
		}
		enc.ResetContentSize(dst, size)
		if _, err := io.Copy(enc, ctxio.Reader(ctx, src)); err != nil {
			_ = enc.Close()
			return err
		}
		return enc.Close()
	}
}

// CommandEncoder returns an Encoder that runs a program as a filter from its
// standard input to its standard output, such as the argv of ZstdCommand or a
// `docker exec -i` around it. The program must not write to the terminal.
func CommandEncoder(argv func(size int64) []string) Encoder {
	return func(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
		args := argv(size)
		if len(args) == 0 {
			return errors.New("zstd encoder: empty command")
		}
		var stderr bytes.Buffer
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = src, dst, &stderr
		if err := cmd.Run(); err != nil {
			if msg := bytes.TrimSpace(stderr.Bytes()); len(msg) > 0 {
				return fmt.Errorf("run %s: %w: %s", args[0], err, msg)
			}
			return fmt.Errorf("run %s: %w", args[0], err)
		}
		return nil
	}
}

// ZstdCommand returns the arguments of the zstd program for one frame at that
// level (1 to 22) and window logarithm (10 to 27). One thread, since frames
// are encoded side by side and the bytes must not depend on the machine.
func ZstdCommand(level, windowLog int) func(size int64) []string {
	return func(size int64) []string {
		return []string{
			"zstd", "-q", "-c", "--no-progress", "--single-thread", "--check", "--ultra",
			"-" + strconv.Itoa(level), "--zstd=wlog=" + strconv.Itoa(windowLog),
			"--stream-size=" + strconv.FormatInt(size, 10), "-",
		}
	}
}

// WindowLog returns the window for a frame of that many bytes: 32 MiB for the
// few large libraries, whose repetitions lie far apart, and 8 MiB for the
// rest, which hardly gains from more (figures in docs/pack.md). A reader holds
// at most one of the large windows at a time.
func WindowLog(size int64) int {
	if size > 96<<20 {
		return 25
	}
	return 23
}
