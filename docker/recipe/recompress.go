package recipe

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"strconv"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// recompressLevel and recompressWindow are the level and the binary logarithm of the
// window of a Recompressor: 128 MiB, the largest that dpkg accepts (the limit of
// libzstd's decoder), and so do the container engines. An archive has the holes of a
// pack as zeros, so that equal code is farther apart than in the pack.
const (
	recompressLevel  = 19
	recompressWindow = 27
)

// RecompressCommand returns the arguments of the zstd program for one frame of unknown
// size. The bytes do not depend on the number of threads, which is at least 1: zstd
// splits the input in the same way for any number, unlike with --single-thread.
func RecompressCommand(threads int) []string {
	return []string{
		"zstd", "-q", "-c", "--no-progress", "-T" + strconv.Itoa(max(threads, 1)), "--check",
		"-" + strconv.Itoa(recompressLevel), "--long=" + strconv.Itoa(recompressWindow), "-",
	}
}

// Recompressor compresses archives by the toolchain's zstd, whose version is locked and
// whose result is smaller than that of a compressor in Go.
type Recompressor struct {
	r *Recipe
	t *toolchain.Toolchain
}

// Recompressor returns the recompressor of the toolchain for the CPU.
func (r *Recipe) Recompressor(ctx context.Context) (*Recompressor, error) {
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(toolchain.CPU), r.Log)
	if err != nil {
		return nil, err
	}
	return &Recompressor{r, t}, nil
}

// Key identifies the result for a given input.
func (c *Recompressor) Key() string {
	return fmt.Sprintf("zstd %s, level %d, long window %d", c.t.Version("zstd"), recompressLevel, recompressWindow)
}

// Run reads a zstd stream of size bytes from src and writes one frame with the same
// content to dst. The caller compares the contents.
func (c *Recompressor) Run(ctx context.Context, dst io.Writer, src io.Reader, size int64) error {
	if err := toolchain.Ensure(ctx, c.r.Engine, c.r.toolchainSpec(toolchain.CPU), c.t, c.r.Log); err != nil {
		return err
	}
	return c.r.Engine.Run(ctx, engine.Job{
		Name: "recompress", Image: c.t.ID,
		Cmd: append([]string{"/bin/sh", "-eu", "-c", `zstd -q -d -c </src/data.zst | "$@" >/build/data.zst`, "recompress"}, RecompressCommand(c.r.Jobs)...),
		Env: []string{"LC_ALL=C.UTF-8"}, Dir: "/build", UID: toolchain.User, GID: toolchain.User, Volumes: []string{"/src", "/build"},
		In: []engine.Input{{Dir: "/src", Write: func(w *tar.Writer) error {
			h := &tar.Header{Name: "data.zst", Typeflag: tar.TypeReg, Mode: 0o644, Size: size, ModTime: c.r.Lock.Time()}
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(w, src)
			return err
		}}},
		Out: []engine.Output{{Path: "/build/data.zst", Read: func(_ *tar.Header, body io.Reader) error {
			_, err := io.Copy(dst, body)
			return err
		}}},
		Log: c.r.Log,
	})
}
