package engine

import (
	"context"
	"crypto/sha256"
	_ "embed" // the library is compiled where it is used
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed elsewhere/preload.c
var preloadSource string

// Circumstances that Elsewhere gives to jobs. The clock's shift moves the
// date to another year and the time of day by some hours.
const (
	elsewhereUser  = 4711
	elsewhereHost  = "another-host-with-a-longer-name"
	elsewhereShift = 400*24*time.Hour + 7*time.Hour + 13*time.Second
)

// elsewhereScript makes an image whose volumes belong to the other user, with
// the preloaded library in it, compiled there so that it fits the C library.
const elsewhereScript = `
printf %s "$1" >/tmp/preload.c
cc -O1 -Wall -Werror -shared -fPIC -o /elsewhere.so /tmp/preload.c
rm /tmp/preload.c
shift
[ $# = 0 ] || chown "$@"`

// Elsewhere gives an engine whose jobs run under other circumstances: another
// user and group id, another host name, folders that are read in the reverse
// order, and a clock of another year. What a job makes must not show them;
// comparing shows whether it does. The image must have a C compiler; a copy of
// it is kept as go-rocm/elsewhere.
//
// Jobs with a network or with added rights are left as they are: they take part
// in making images, where signatures are checked by the clock.
func Elsewhere(e Engine) Engine {
	return &elsewhere{Engine: e}
}

type elsewhere struct {
	Engine
	mu sync.Mutex // a copy is made once
}

// Run runs the job under the other circumstances.
func (e *elsewhere) Run(ctx context.Context, job Job) error {
	if job.Network || job.CommitAs != "" || len(job.Caps) > 0 {
		return e.Engine.Run(ctx, job)
	}
	var err error
	if job.Image, err = e.image(ctx, job); err != nil {
		return err
	}
	if job.UID != 0 {
		job.UID, job.GID = elsewhereUser, elsewhereUser
	}
	job.Host = elsewhereHost
	job.Env = append(slices.Clip(job.Env),
		"LD_PRELOAD=/elsewhere.so",
		"ELSEWHERE_SECONDS="+strconv.FormatInt(int64(elsewhereShift/time.Second), 10),
		"USER=somebody", "LOGNAME=somebody", "NOISE="+strings.Repeat("noise ", 500))
	return e.Engine.Run(ctx, job)
}

// image gives the copy of a job's image, which is named by what it is made of.
func (e *elsewhere) image(ctx context.Context, job Job) (string, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	of, err := e.Image(ctx, job.Image)
	if err != nil {
		return "", err
	}
	cmd := []string{"/bin/sh", "-eu", "-c", elsewhereScript, "elsewhere", preloadSource}
	if job.UID != 0 && len(job.Volumes) > 0 {
		cmd = append(append(cmd, fmt.Sprintf("%d:%d", elsewhereUser, elsewhereUser)), job.Volumes...)
	}
	sum := sha256.Sum256([]byte(of.ID + strings.Join(cmd, "\x00")))
	ref := fmt.Sprintf("go-rocm/elsewhere:%x", sum[:6])
	if _, err := e.Image(ctx, ref); !errors.Is(err, ErrNoImage) {
		return ref, err
	}
	if err := e.Engine.Run(ctx, Job{Name: "elsewhere", Image: job.Image, Cmd: cmd, Env: []string{"PATH=/usr/bin:/bin"}, Dir: "/", CommitAs: ref}); err != nil {
		return "", fmt.Errorf("make a copy of image %s with other circumstances: %w", job.Image, err)
	}
	return ref, nil
}
