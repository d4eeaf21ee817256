package apt_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

// TestMain lets this program be the publisher that a test kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("APT_TEST_PUBLISH"); dir != "" {
		if err := publishForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// publishForever publishes the packages of the folder one by one, each a second
// later than the one before.
func publishForever(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	keys, err := apt.ParseKeys(text, nil)
	if err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "debs/*.deb"))
	if err != nil {
		return err
	}
	// Each publish changes the indexes, however many there were before.
	for n := 0; ; n++ {
		at := first.Add(time.Duration(n+1) * time.Second)
		o := options(filepath.Join(dir, "apt"), keys, at, debs[:1+n%len(debs)]...)
		if err := apt.Publish(context.Background(), o); err != nil && !strings.Contains(err.Error(), apt.ErrDate.Error()) {
			return err
		}
		fmt.Println(n)
	}
}

// TestPublishKilled kills a publisher at many moments. Whatever was cut short,
// clients see a whole repository, and the next publisher goes on.
func TestPublishKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir, key := t.TempDir(), newKey(t, nil)
	overwrite(t, filepath.Join(dir, "key"), string(export(t, key, true)))
	if err := os.Mkdir(filepath.Join(dir, "debs"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		deb := newDeb(t, fmt.Sprintf("thing%02d", i), "1.0-1", "body")
		if err := os.Rename(deb, filepath.Join(dir, "debs", fmt.Sprintf("%02d.deb", i))); err != nil {
			t.Fatal(err)
		}
	}
	site := filepath.Join(dir, "apt")
	publish(t, options(site, keysOf(t, key), first))
	c := client{dir: site, keys: openpgp.EntityList{key}}
	for round := range 15 {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), "APT_TEST_PUBLISH="+dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+11*round) * time.Millisecond) // wherever it then is
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("the publisher ended by itself: %v", err)
		}
		_ = cmd.Wait() // killed
		sums, err := c.update()
		if err == nil {
			err = c.fetch(sums)
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	publish(t, options(site, keysOf(t, key), first.AddDate(0, 0, 1)))
	sums, err := c.update()
	if err == nil {
		err = c.fetch(sums)
	}
	if err != nil {
		t.Error(err)
	}
	for name := range tree(t, site) {
		if strings.HasSuffix(name, ".part") && !strings.HasPrefix(name, "pool/") {
			t.Errorf("left: %s", name)
		}
	}
}
