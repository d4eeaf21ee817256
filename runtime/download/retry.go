package download

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

const (
	firstWait = 500 * time.Millisecond
	maxWait   = 30 * time.Second
	// maxRetryAfter is the longest time that a server can make a download wait. A
	// longer one ends the download, with the time in the error.
	maxRetryAfter = 5 * time.Minute
)

// retry calls try until it succeeds, fails for good, or has failed too often without
// progress.
func (c *Client) retry(ctx context.Context, try func() (progress bool, err error)) error {
	for failures := 0; ; {
		progress, err := try()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if progress {
			failures = 0
		}
		failures++
		wait, again := waitAfter(err, failures)
		if !again || failures >= cmp.Or(c.Attempts, defaultAttempts) {
			return err
		}
		c.logger().Warn("the request is repeated", "cause", err.Error(), "after", wait.String())
		if err := c.sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// waitAfter returns how long to wait after the nth failure, and whether repeating
// can help.
func waitAfter(err error, n int) (wait time.Duration, again bool) {
	wait = min(firstWait<<min(n-1, 10), maxWait)
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // jitter needs no secrecy
	var status *StatusError
	var check *checkError
	switch {
	case errors.As(err, &status):
		if status.RetryAfter > maxRetryAfter {
			return 0, false
		}
		return cmp.Or(status.RetryAfter, wait), status.Temporary()
	case errors.Is(err, ErrAnswer), errors.Is(err, ErrChanged), errors.Is(err, ErrRedirect), errors.Is(err, ErrSpace), errors.Is(err, ErrSize), errors.As(err, &check), isWriteError(err):
		return 0, false
	}
	return wait, true // of the network
}

// isWriteError reports an error of writing the file, which no request cures.
func isWriteError(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EFBIG} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func (c *Client) sleep(ctx context.Context, d time.Duration) error {
	if c.Sleep != nil {
		return c.Sleep(ctx, d)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryAfter returns the time of a Retry-After header, in seconds or as a date; 0 if
// there is none or it has passed.
func retryAfter(h http.Header, now time.Time) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil || !at.After(now) {
		return 0
	}
	return at.Sub(now).Round(time.Second)
}
