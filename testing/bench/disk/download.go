package disk

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/runtime/download"
	"forge.lthn.ai/core/go-rocm/runtime/modelstore"
)

// InnerDownload is the first argument of the child process that downloads once; it
// calls DownloadOnce.
const InnerDownload = "download-once"

// DownloadOnce downloads a file into a store as `go-rocm pull` does, and writes the
// time and the peak memory of the process to w. args are the URL, the SHA-256 and the
// directory of the store.
func DownloadOnce(ctx context.Context, w io.Writer, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("%s needs a URL, a digest and a directory, not %q", InnerDownload, args)
	}
	var o once
	var err error
	if o.Start, err = peak(); err != nil {
		return err
	}
	start := time.Now()
	if err := store(ctx, args[0], args[1], args[2]); err != nil {
		return err
	}
	o.Seconds = time.Since(start).Seconds()
	if o.End, err = peak(); err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(o)
}

// store fetches a file, verifies its digest and makes it a durable blob of a store.
func store(ctx context.Context, url, digest, dir string) (err error) {
	s, err := modelstore.Open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	w, err := s.Write(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	part, err := w.Partial(ctx, digest, digest, -1)
	if err != nil || part == nil {
		return errors.Join(err, errors.New("the store is not empty"))
	}
	got, err := new(download.Client).Fetch(ctx, download.Source{URL: url, Size: -1, SHA256: digest}, download.Target{File: part.File, StatePath: part.StatePath})
	if err != nil {
		return errors.Join(err, part.Close())
	}
	return part.Commit(got.SHA256)
}

// Download compares the download and the verification of a file of size bytes, over the
// loopback interface, with curl and sha256sum.
func Download(ctx context.Context, in Input, size int64) (page.Section, error) {
	var none page.Section
	served := filepath.Join(in.Work, "served.gguf")
	digest, err := writeRandom(served, size)
	if err != nil {
		return none, err
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"`+digest[:16]+`"`)
		http.ServeFile(w, r, served)
	}))
	defer server.Close()
	url := server.URL + "/served.gguf"
	var memory []float64
	ours := in.fresh("pull", func(ctx context.Context, dir string) (float64, error) {
		o, took, err := inner(ctx, InnerDownload, url, digest, dir)
		memory = append(memory, float64(o.End-o.Start)/1024)
		return took, err
	})
	// The digest is compared, as in ours; "$1" is the URL, "$2" the digest, "$3" a directory.
	const check = ` | { read -r sum _; [ "$sum" = "$2" ]; }`
	peer := func(what, script string) page.Variant {
		return in.fresh(what, timed(func(ctx context.Context, dir string) error {
			return errors.Join(os.Mkdir(dir, 0o700), shell(ctx, script, url, digest, dir))
		}))
	}
	samples, err := page.Interleave(ctx, in.Rounds, ours,
		peer("curl | sha256sum", `curl -fsS "$1" | sha256sum`+check),
		peer("curl | tee | sha256sum", `curl -fsS "$1" | tee "$3/m" | sha256sum`+check),
		peer("curl | tee | sha256sum; sync", `curl -fsS "$1" | tee "$3/m" | sha256sum`+check+` && sync "$3/m"`))
	if err := errors.Join(err, os.Remove(served)); err != nil {
		return none, err
	}
	row := func(what string, i int) []string {
		seconds, speed := page.Median(samples[i]), ""
		if i > 0 {
			speed = page.Ratio(page.Median(page.Ratios(samples[i], samples[0])))
		}
		return []string{what, page.Figure(seconds), page.Figure(float64(size) / 1e6 / seconds), speed}
	}
	return page.Section{
		Name: page.Download, Title: "Download and verification of a model",
		Text: []string{
			fmt.Sprintf("A file of %d MiB from a server on the loopback interface, which has it in memory, into an empty store, as a whole process: fetched in ranges over %d connections, hashed, and durable under its digest. "+
				"The peers compare the digest too; the first one keeps no file, the last one also waits for the disk. Medians of %d rounds, in alternating order; a ratio is the median of the ratios of the rounds, above 1 where ours is faster.", size>>20, download.DefaultConnections, in.Rounds),
			"Memory is the increase of the peak memory of the process (VmHWM); the median of the rounds.",
		},
		Head: []string{"", "seconds", "MB per second", "times as fast is ours"},
		Rows: [][]string{
			row("**`go-rocm pull`, durable**", 0), row("`curl \\| sha256sum`, without a file", 1),
			row("`curl \\| tee \\| sha256sum`", 2), row("`curl \\| tee \\| sha256sum`, then `sync` of the file", 3),
		},
		Goals: []page.Goal{
			{What: "speed of download and verification against `curl | sha256sum`, which keeps no file:", Got: page.Median(page.Ratios(samples[1], samples[0])), Limit: 0.95, Unit: "times", AtLeast: true},
			{What: "peak memory over the process's start:", Got: page.Median(memory), Limit: 32, Unit: "MiB"},
		},
	}, nil
}

// inner runs this program again, for one measurement in a process of its own.
func inner(ctx context.Context, args ...string) (o once, seconds float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return o, 0, err
	}
	start := time.Now()
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	seconds = time.Since(start).Seconds()
	if err != nil {
		return o, 0, fmt.Errorf("%s in a process of its own: %w", args[0], err)
	}
	return o, seconds, json.Unmarshal(out, &o)
}

// writeRandom writes a file of random bytes and returns its SHA-256.
func writeRandom(path string, size int64) (digest string, err error) {
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8([32]byte{1}), size)
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, f.Close())
}
