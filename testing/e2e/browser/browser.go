// Package browser opens web pages in Chromium for end-to-end tests, and reports what
// went wrong in them: messages of the console, exceptions, violations of the content
// security policy, requests to other origins, and violations that axe-core finds.
//
// Chromium must be installed. It runs without a window, with an empty profile, and
// resolves no host name but localhost.
package browser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

// EnvChromium names the program, if it is not "chromium" in PATH.
const EnvChromium = "GOROCM_CHROMIUM"

// ForeignHost is the name of a host that is not this machine for a page, and that
// Chromium finds here.
const ForeignHost = "foreign.test"

// Browser is a running Chromium.
type Browser struct {
	ctx context.Context
}

// find returns the path of Chromium.
func find() (string, error) {
	name := os.Getenv(EnvChromium)
	if name == "" {
		name = "chromium"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find Chromium: %w; install it with \"apt-get install --no-install-recommends chromium\", or set %s to its path", err, EnvChromium)
	}
	return path, nil
}

// Start starts Chromium, and stops it at the end of the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	path, err := find()
	if err != nil {
		t.Fatal(err)
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.UserDataDir(t.TempDir()),
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-domain-reliability", true),
		chromedp.Flag("no-proxy-server", true),
		// Nothing outside this machine is reached, whatever a page or Chromium requests.
		chromedp.Flag("host-resolver-rules", "MAP "+ForeignHost+" 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	)
	if os.Geteuid() == 0 {
		opts = append(opts, chromedp.NoSandbox) // Chromium's sandbox rejects root
	}
	// t.Context() ends before the cleanup, which stops Chromium.
	alloc, stop := chromedp.NewExecAllocator(context.Background(), opts...)
	ctx, cancel := chromedp.NewContext(alloc, chromedp.WithErrorf(t.Logf))
	t.Cleanup(func() {
		if err := chromedp.Cancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("stop Chromium: %v", err)
		}
		cancel()
		stop()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return &Browser{ctx: ctx}
}
