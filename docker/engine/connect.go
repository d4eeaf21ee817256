package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"forge.lthn.ai/core/go-rocm/internal/procgroup"
)

// installCommands are the commands that install an engine, for people and for Connect.
var installCommands = [][]string{
	{"apt-get", "update"},
	{"apt-get", "install", "-y", "--no-install-recommends", "docker.io", "iptables"},
}

// ErrNoEngine reports that no container engine could be reached or started.
var ErrNoEngine = errors.New("no container engine is reachable")

// ConnectOptions determine what Connect may do if no engine answers.
type ConnectOptions struct {
	// MayInstall is asked before packages are installed or a daemon is
	// started; nil means no.
	MayInstall func() bool
	// LogDir is the directory for the log of a daemon that Connect starts.
	LogDir string
	// Log receives a line for each slow step.
	Log io.Writer
}

// Connect connects to the engine that DOCKER_HOST or the docker context names, else
// to the first of the sockets of Docker and Podman that answers. If MayInstall
// agrees, it installs and starts Docker on an apt-based system as root.
func Connect(ctx context.Context, o ConnectOptions) (Engine, error) {
	api, chosen, err := reach(ctx)
	if err == nil {
		return newDocker(ctx, api)
	}
	if chosen {
		return nil, fmt.Errorf("%w: %w", ErrNoEngine, err)
	}
	if reason := cannotInstall(); reason != "" {
		return nil, fmt.Errorf("%w (%w): install Docker or Podman, or set DOCKER_HOST; go-rocm does not install one because %s", ErrNoEngine, err, reason)
	}
	if o.MayInstall == nil || !o.MayInstall() {
		return nil, fmt.Errorf("%w; to install one, run as root:\n  apt-get update\n  apt-get install -y --no-install-recommends docker.io iptables\n  dockerd &\nor start Podman's:\n  systemctl start podman.socket", ErrNoEngine)
	}
	if err := install(ctx, o.Log); err != nil {
		return nil, err
	}
	if err := startDaemon(ctx, o); err != nil {
		return nil, err
	}
	api, _, err = reach(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w after its start: %w", ErrNoEngine, err)
	}
	return newDocker(ctx, api)
}

// cannotInstall returns why an engine cannot be installed here, or "".
func cannotInstall() string {
	if os.Geteuid() != 0 {
		return "this is not the root user"
	}
	if _, err := exec.LookPath("apt-get"); err != nil {
		return "this system has no apt-get"
	}
	return ""
}

func install(ctx context.Context, log io.Writer) error {
	if _, err := exec.LookPath("dockerd"); err == nil {
		return nil
	}
	for _, argv := range installCommands {
		if _, err := fmt.Fprintln(log, "engine:", argv); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := procgroup.Output(ctx, cmd, time.Minute); err != nil {
			return fmt.Errorf("%v: %w\n%s", argv, err, out)
		}
	}
	return nil
}

// startDaemon starts the engine with systemd, or directly on a machine without systemd,
// and waits until it answers. The daemon outlives this process, like an installed service.
func startDaemon(ctx context.Context, o ConnectOptions) error {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		if out, err := exec.CommandContext(ctx, "systemctl", "start", "docker").CombinedOutput(); err != nil {
			return fmt.Errorf("systemctl start docker: %w\n%s", err, out)
		}
		return nil
	}
	if err := os.MkdirAll(o.LogDir, 0o750); err != nil {
		return fmt.Errorf("make the engine's log directory: %w", err)
	}
	name := filepath.Join(o.LogDir, "dockerd.log")
	logFile, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the engine's log: %w", err)
	}
	defer logFile.Close()
	if _, err := fmt.Fprintln(o.Log, "engine: starting dockerd, log in", name); err != nil {
		return err
	}
	cmd := exec.Command("dockerd") //nolint:noctx // it must outlive this process
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start dockerd: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	deadline := time.NewTimer(90 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-ended:
			return fmt.Errorf("dockerd ended at once (%w); see %s", err, name)
		case <-deadline.C:
			return fmt.Errorf("dockerd did not answer within 90 s; see %s", name)
		case <-tick.C:
			if api, _, err := reach(ctx); err == nil {
				return api.Close()
			}
		}
	}
}
