package engine

import (
	"context"
	"crypto/sha256"
	_ "embed" // the library is compiled in the images where it is used
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed vary/preload.c
var preloadSource string

// The variations. The clock's offset changes the year and the time of day.
const (
	variedUser  = 4711
	variedHost  = "another-host-with-a-longer-name"
	clockOffset = 400*24*time.Hour + 7*time.Hour + 13*time.Second
)

// varyScript prepares a copy of an image: it compiles the preloaded library there,
// so that the library fits the C library, and changes the owner of the volumes.
const varyScript = `
printf %s "$1" >/tmp/preload.c
cc -O1 -Wall -Werror -shared -fPIC -o /vary.so /tmp/preload.c
rm /tmp/preload.c
shift
[ $# = 0 ] || chown "$@"`

// Vary returns an engine that runs jobs with variations, as reprotest(1) calls
// them: another user and group id, another host name, directories that are read
// in the reverse order, and a clock of another year. A reproducible job has the
// same results with and without them. The image must have a C compiler; a copy
// of it is kept as go-rocm/vary.
//
// Jobs with a network or with added privileges run without variations: they create images,
// and signatures depend on the clock.
func Vary(e Engine) Engine {
	return &vary{Engine: e}
}

type vary struct {
	Engine
	mu sync.Mutex // a copy is made once
}

// Run runs the job with variations.
func (v *vary) Run(ctx context.Context, job Job) error {
	if job.Network || job.CommitAs != "" || len(job.Caps) > 0 {
		return v.Engine.Run(ctx, job)
	}
	var err error
	if job.Image, err = v.image(ctx, job); err != nil {
		return err
	}
	if job.UID != 0 {
		job.UID, job.GID = variedUser, variedUser
	}
	job.Host = variedHost
	job.Env = append(slices.Clip(job.Env),
		"LD_PRELOAD=/vary.so",
		"VARY_CLOCK_SECONDS="+strconv.FormatInt(int64(clockOffset/time.Second), 10),
		"USER=somebody", "LOGNAME=somebody", "NOISE="+strings.Repeat("noise ", 500))
	return v.Engine.Run(ctx, job)
}

// image returns the copy of a job's image, whose name contains the digest of what
// it is made from.
func (v *vary) image(ctx context.Context, job Job) (string, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	original, err := v.Image(ctx, job.Image)
	if err != nil {
		return "", err
	}
	cmd := []string{"/bin/sh", "-eu", "-c", varyScript, "vary", preloadSource}
	if job.UID != 0 && len(job.Volumes) > 0 {
		cmd = append(append(cmd, fmt.Sprintf("%d:%d", variedUser, variedUser)), job.Volumes...)
	}
	sum := sha256.Sum256([]byte(original.ID + strings.Join(cmd, "\x00")))
	ref := fmt.Sprintf("go-rocm/vary:%x", sum[:6])
	if _, err := v.Image(ctx, ref); !errors.Is(err, ErrNoImage) {
		return ref, err
	}
	if err := v.Engine.Run(ctx, Job{Name: "vary", Image: job.Image, Cmd: cmd, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", CommitAs: ref}); err != nil {
		return "", fmt.Errorf("prepare a copy of image %s for a build with variations: %w", job.Image, err)
	}
	return ref, nil
}
