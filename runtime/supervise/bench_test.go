//go:build linux

package supervise

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

// BenchmarkRequest sends a request for one token and reads its stream, through the client
// of the child's users and through net/http's own transport, which needs a new connection
// for each stream.
func BenchmarkRequest(b *testing.B) {
	env, err := fakellama.Script{NeverEnds: true}.Env()
	if err != nil {
		b.Fatal(err)
	}
	c, err := Start(b.Context(), Spec{Argv: []string{os.Args[0]}, Env: []string{roleName + "=" + roleServer, env}, SocketDir: filepath.Join(b.TempDir(), "run"), DrainTimeout: -1})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Stop(context.Background()) }()
	bare := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.Addr())
	}}
	for _, bb := range []struct {
		name   string
		client *http.Client
	}{{"supervised", c.HTTPClient()}, {"bare", &http.Client{Transport: bare}}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, c.BaseURL()+"/completion", strings.NewReader(`{"prompt":"Once","n_predict":1,"stream":true}`))
				if err != nil {
					b.Fatal(err)
				}
				req.Header.Set("Authorization", "Bearer "+c.APIKey())
				res, err := bb.client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, res.Body); err != nil || n == 0 {
					b.Fatal(n, err)
				}
				_ = res.Body.Close()
			}
		})
	}
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
