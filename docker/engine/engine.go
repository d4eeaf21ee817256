// Package engine is the only package that communicates with a container engine. It uses the
// Docker Engine API (any daemon that DOCKER_HOST or the usual sockets reach, local or
// remote) and provides only what a build needs: it looks up, pulls and imports images, runs
// a job in a locked-down container with files copied in and out, and reads files of an image
// without running it.
//
// Files travel through the API's archive calls, never through bind mounts, so
// that the same build works against a daemon on another machine.
//
// The package does not depend on compilers, recipes or bundles.
package engine

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ErrNoImage reports that the engine does not have an image.
var ErrNoImage = errors.New("no such image")

// ErrNotExist reports that an image has no such file.
var ErrNotExist = errors.New("no such file in the image")

// Image describes an image of the engine.
type Image struct {
	// ID is the content digest of the image's configuration, "sha256:…".
	ID string
	// Digests are the registry digests the image was pulled by, if any.
	Digests []string
	// Labels are the labels of the image.
	Labels map[string]string
}

// Engine is the part of a container engine that builds use.
type Engine interface {
	// Image looks up an image by reference or id. The error is ErrNoImage when
	// the engine does not have it.
	Image(ctx context.Context, ref string) (Image, error)
	// Pull fetches an image from its registry; progress receives one line for
	// each finished layer.
	Pull(ctx context.Context, ref string, progress io.Writer) (Image, error)
	// Resolve returns the digest of a reference in the registry, without pulling
	// the image.
	Resolve(ctx context.Context, ref string) (digest string, err error)
	// Import creates an image of one layer from the tar stream of a root file system.
	Import(ctx context.Context, ref string, rootfs io.Reader) (Image, error)
	// Run runs a job to its end and removes its container, also when ctx
	// ends first. A job that fails is an *ExitError.
	Run(ctx context.Context, job Job) error
	// Files opens the files of an image for reading, without running it.
	Files(ctx context.Context, ref string) (Files, error)
	// Close closes the connection.
	Close() error
}

// ImportFrom creates an image from the root file system that write writes as a tar stream. If
// write fails, so does the import: an engine would create an image from an incomplete stream,
// too.
func ImportFrom(ctx context.Context, e Engine, ref string, write func(io.Writer) error) (Image, error) {
	pr, pw := io.Pipe()
	type result struct {
		img Image
		err error
	}
	done := make(chan result, 1)
	go func() {
		img, err := e.Import(ctx, ref, pr)
		pr.CloseWithError(errors.Join(errors.New("the engine stopped reading"), err))
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
	// Stat returns the entry at path itself; a link is not followed.
	Stat(ctx context.Context, path string) (Entry, error)
	// Walk streams the file or directory at path as tar entries to visit. The
	// names begin with the last element of path.
	Walk(ctx context.Context, path string, visit func(*tar.Header, io.Reader) error) error
	// Close removes the engine's container for the files.
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
	// Volumes are absolute paths of writable directories. Each gets the owner of the
	// directory with the same path in the image.
	Volumes []string
	// In fills directories before the start; each path must be in a volume unless the root is
	// writable.
	In []Input
	// Out reads files after the command succeeded.
	Out []Output
	// Log receives the command's standard output and error, merged.
	Log io.Writer
	// Stdout receives the standard output instead of Log, as it is written: a large result
	// needs no file in the container. If it returns an error, the job ends with it.
	Stdout io.Writer
	// CPUs bounds the processors (0: all) and Memory the bytes (0: no bound).
	CPUs   float64
	Memory int64
	// CommitAs saves the container's file system as an image with this reference. It makes
	// the root writable while the job runs.
	CommitAs string
}

// Input is a directory to fill.
type Input struct {
	Dir string
	// Write writes the directory's content as tar entries.
	Write func(*tar.Writer) error
}

// Output is a file or directory to copy out.
type Output struct {
	Path string
	Read func(*tar.Header, io.Reader) error
}

// ExitError reports that a job's command ended with a status other than 0.
type ExitError struct {
	Job      string
	Code     int64
	OOM      bool
	LastLogs []string
}

// Error returns the job's name, its exit status and its last lines.
func (e *ExitError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "job %s exited with status %d", e.Job, e.Code)
	if e.OOM {
		b.WriteString(" because the machine or its memory limit (GOROCM_MEMORY) ran out of memory; raise the limit or use fewer jobs (GOROCM_JOBS)")
	}
	if len(e.LastLogs) > 0 {
		b.WriteString("; its last lines:\n  ")
		b.WriteString(strings.Join(e.LastLogs, "\n  "))
	}
	return b.String()
}
