package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
)

// ownerID names this process so that it cannot be mistaken for a later one of
// the same number: host, pid and the kernel's start time of the pid.
func ownerID() (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("name this host: %w", err)
	}
	return fmt.Sprintf("%s/%d/%s", host, os.Getpid(), startTime(os.Getpid())), nil
}

// alive reports whether the process behind an owner id still runs. An owner
// on another host cannot be judged and counts as alive.
func alive(owner string) bool {
	part := strings.Split(owner, "/")
	host, err := os.Hostname()
	if len(part) != 3 || err != nil || part[0] != host {
		return true
	}
	pid, err := strconv.Atoi(part[1])
	return err != nil || startTime(pid) == part[2]
}

// startTime reads field 22 of /proc/PID/stat (see proc(5)), in clock ticks
// since boot; empty when there is no such process or no procfs.
func startTime(pid int) string {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return ""
	}
	// The command in field 2 may hold spaces; fields are counted after it.
	s := string(b)
	rest := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(rest) < 20 {
		return ""
	}
	return rest[19]
}

// sweep removes containers whose maker is gone.
func (d *docker) sweep(ctx context.Context) error {
	list, err := d.api.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("label", labelOwner))})
	if err != nil {
		return fmt.Errorf("list left-over containers: %w", err)
	}
	for _, c := range list {
		if alive(c.Labels[labelOwner]) {
			continue
		}
		err := d.remove(c.ID)
		if err != nil && !errdefs.IsNotFound(errors.Unwrap(err)) && !errdefs.IsConflict(errors.Unwrap(err)) {
			return err
		}
	}
	return nil
}
