package supervise

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// maxHelp limits how much of --help is read; v0.5.0 writes some 60 KB.
const maxHelp = 4 << 20

// ProbeFlags runs the program with --help, once for each digest, and returns the
// flags that it accepts.
func ProbeFlags(ctx context.Context, p Probe) (*Flags, error) {
	if len(p.Argv) == 0 {
		return nil, fmt.Errorf("%w: Argv is empty; set it to the program to probe", ErrInvalidSpec)
	}
	if p.Digest == "" {
		var err error
		if p.Digest, err = fileDigest(p.Argv[len(p.Argv)-1]); err != nil {
			return nil, err
		}
	}
	if p.Dir == "" {
		p.Dir = filepath.Dir(p.Argv[len(p.Argv)-1])
	}
	name := ""
	if p.CacheDir != "" {
		key := sha256.Sum256([]byte(p.Digest))
		name = filepath.Join(p.CacheDir, "flags-"+hex.EncodeToString(key[:12])+".json")
		if raw, err := os.ReadFile(name); err == nil {
			var f Flags
			if json.Unmarshal(raw, &f) == nil && len(f.TakesValue) > 0 {
				return &f, nil
			}
		}
	}
	text, err := runHelp(ctx, p)
	if err != nil {
		return nil, err
	}
	f, err := ParseHelp(text)
	if err != nil {
		return nil, err
	}
	if name != "" {
		saveFlags(name, f)
	}
	return f, nil
}

func runHelp(ctx context.Context, p Probe) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	argv := append(append([]string{}, p.Argv...), "--help")
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = p.Dir
	cmd.Env, _ = childEnv(os.Environ(), []string{noBacktrace})
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var out, errs limitedBuffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			return nil, startError(argv[0], p.Dir, err)
		}
		e := &ExitError{Code: exit.ExitCode(), Pid: exit.Pid(), State: Starting}
		if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			e.Code, e.Signal = -1, ws.Signal()
		}
		for line := range bytes.Lines(errs.Bytes()) {
			e.Log = append(e.Log, cleanLine(line))
		}
		diagnose(e, false)
		return nil, fmt.Errorf("read the flags of llama-server: %w", e)
	}
	return out.Bytes(), nil
}

// limitedBuffer keeps the first maxHelp bytes and drops the rest. It does not embed
// bytes.Buffer, whose ReadFrom would read everything.
type limitedBuffer struct{ kept bytes.Buffer }

// Write implements io.Writer.
func (b *limitedBuffer) Write(p []byte) (int, error) {
	if free := maxHelp - b.kept.Len(); free > 0 {
		_, _ = b.kept.Write(p[:min(free, len(p))]) // never fails
	}
	return len(p), nil
}

// Bytes returns the kept bytes.
func (b *limitedBuffer) Bytes() []byte { return b.kept.Bytes() }

// saveFlags caches the flags. If that fails, the next start probes again.
func saveFlags(name string, f *Flags) {
	raw, err := json.Marshal(f)
	if err != nil || os.MkdirAll(filepath.Dir(name), 0o700) != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".flags-*")
	if err != nil {
		return
	}
	_, err = tmp.Write(raw)
	if cerr := tmp.Close(); err != nil || cerr != nil || os.Rename(tmp.Name(), name) != nil {
		_ = os.Remove(tmp.Name())
	}
}

func fileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", fmt.Errorf("read llama-server: %w", err)
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read llama-server: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
