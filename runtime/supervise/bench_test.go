//go:build linux

package supervise

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// BenchmarkReady compares the time from the call to readiness under the
// supervisor with that of the same program executed bare and asked for /health
// in a tight loop.
func BenchmarkReady(b *testing.B) {
	env, err := fakellama.Script{LoadTime: 20 * time.Millisecond}.Env()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("supervised", func(b *testing.B) {
		dir := filepath.Join(b.TempDir(), "run")
		for b.Loop() {
			c, err := Start(b.Context(), Spec{Argv: []string{os.Args[0]}, Env: []string{roleName + "=" + roleServer, env}, SocketDir: dir, DrainTimeout: -1})
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := c.Stop(context.Background()); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
	b.Run("bare", func(b *testing.B) {
		path := filepath.Join(b.TempDir(), "s.sock")
		for b.Loop() {
			cmd := exec.Command(os.Args[0], "--host", path)
			cmd.Env = append(os.Environ(), roleName+"="+roleServer, env)
			if err := cmd.Start(); err != nil {
				b.Fatal(err)
			}
			pollBare(path)
			b.StopTimer()
			if err := cmd.Process.Kill(); err != nil {
				b.Fatal(err)
			}
			_ = cmd.Wait()
			_ = os.Remove(path)
			b.StartTimer()
		}
	})
}

func pollBare(path string) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}
	defer tr.CloseIdleConnections()
	hc := &http.Client{Transport: tr}
	for {
		res, err := hc.Get("http://bare/health")
		if err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(100 * time.Microsecond)
	}
}
