// Package engine is the only place that talks to a container engine. It
// speaks the Docker Engine API (any daemon that DOCKER_HOST or the usual
// sockets reach, local or remote) and offers just what a build needs: look an
// image up, pull or import one, run a job in a locked-down container with
// files copied in and out, and read files of an image without running it.
//
// Files travel through the API's archive calls, never through bind mounts, so
// that the same build works against a daemon on another machine.
//
// It knows nothing about compilers, recipes or bundles.
package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNoImage says that the engine does not hold the image that was named.
var ErrNoImage = errors.New("no such image")

// ErrNotExist says that an image holds no file of the path that was asked for.
var ErrNotExist = errors.New("no such file in the image")

// Image is what the engine tells of an image it holds.
type Image struct {
	// ID is the content digest of the image's configuration, "sha256:…".
	ID string
	// Digests are the registry digests the image was pulled by, if any.
	Digests []string
	// Labels are the labels that were put on it when it was made.
	Labels map[string]string
}

// Engine is the part of a container engine that builds use.
type Engine interface {
	// Image looks an image up by reference or id. It gives ErrNoImage when
	// the engine does not hold it.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image from its registry; progress gets one line for
	// each finished layer.
	Pull(ctx context.Context, ref string, progress io.Writer) (Image, error)
	// Resolve asks an image's registry for the digest behind a reference,
	// without fetching the image.
	Resolve(ctx context.Context, ref string) (digest string, err error)
	// Import makes an image of one layer from the tar stream of a root
	// file system.
	Import(ctx context.Context, ref string, rootfs io.Reader, labels map[string]string) (Image, error)
	// Run runs a job to its end and removes its container, also when ctx
	// ends first. A job that fails gives an *ExitError.
	Run(ctx context.Context, job Job) error
	// Files opens the files of an image for reading, without running it.
	Files(ctx context.Context, ref string) (Files, error)
	// Close lets go of the connection.
	Close() error
}

// ImportFrom makes an image of the root file system that write writes as a tar
// stream. When it fails, so does the import: a stream that ends early, or before
// it has begun, would be an image too.
func ImportFrom(ctx context.Context, e Engine, ref string, write func(io.Writer) error) (Image, error) {
	pr, pw := io.Pipe()
	type result struct {
		img Image
		err error
	}
	done := make(chan result, 1)
	go func() {
		img, err := e.Import(ctx, ref, pr, nil)
		pr.CloseWithError(errors.Join(errors.New("the engine takes no more"), err))
		done <- result{img, err}
	}()
	err := write(pw)
	pw.CloseWithError(err)
	res := <-done
	if err != nil {
		return Image{}, errors.Join(err, res.err)
	}
	return res.img, res.err
}

// Files reads single files and directories of an image.
type Files interface {
	// Stat gives the entry at path itself; a link is not followed.
	Stat(ctx context.Context, path string) (Entry, error)
	// Walk streams the file or directory at path as tar entries to take. The
	// names begin with the last element of path.
	Walk(ctx context.Context, path string, take func(*tar.Header, io.Reader) error) error
	// Close removes what the engine keeps for it.
	Close() error
}

// Entry is one entry of an image's file system.
type Entry struct {
	Size       int64
	LinkTarget string // not empty: a symbolic link
	Dir        bool
}

// Job is one run of a command in a container of its own. The container has no
// network unless Network is set, no added privileges, and a read-only root
// unless CommitAs is set.
type Job struct {
	Name  string // for messages and the container's label
	Image string
	Cmd   []string
	Env   []string // NAME=value; the whole environment apart from PATH
	Dir   string   // working directory
	Host  string   // the container's host name; empty: build
	// UID and GID run the command; 0 is root.
	UID, GID int
	Network  bool
	// Caps are capabilities added for jobs that make file systems.
	Caps []string
	// Volumes are absolute paths of writable directories. Each takes over the
	// owner of the image's directory of that path.
	Volumes []string
	// In fills directories before the start; each path must lie in a volume
	// unless the root is writable.
	In []Input
	// Out takes files after a good end.
	Out []Output
	// Log gets the command's standard output and error, merged.
	Log io.Writer
	// CPUs bounds the processors (0: all) and Memory the bytes (0: no bound).
	CPUs   float64
	Memory int64
	// CommitAs keeps the container's file system as an image of this
	// reference; it makes the root writable while the job runs.
	CommitAs     string
	CommitLabels map[string]string
}

// Input is a directory to fill.
type Input struct {
	Dir string
	// Write writes the directory's content as tar entries.
	Write func(*tar.Writer) error
}

// Output is a file or directory to take out.
type Output struct {
	Path string
	Take func(*tar.Header, io.Reader) error
}

// ExitError says that a job's command ended with a status other than 0.
type ExitError struct {
	Job      string
	Code     int64
	OOM      bool
	LastLogs []string
}

// Error names the job, its exit status and the last lines it printed.
func (e *ExitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "job %s ended with status %d", e.Job, e.Code)
	if e.OOM {
		b.WriteString(" because the machine or its memory limit (GOROCM_MEMORY) ran out of memory; give it more or fewer jobs (GOROCM_JOBS)")
	}
	if len(e.LastLogs) > 0 {
		b.WriteString("; its last lines:\n  ")
		b.WriteString(strings.Join(e.LastLogs, "\n  "))
	}
	return b.String()
}
