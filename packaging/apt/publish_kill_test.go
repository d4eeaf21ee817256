package apt_test

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/debgen"
	"forge.lthn.ai/core/go-rocm/testing/cases"
)

// TestMain runs the publisher that TestPublishSurvivesKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("APT_TEST_PUBLISH"); dir != "" {
		if err := publishForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// publishForever publishes one new package after another, each dated one second
// later than the previous one, and prints the date of each publish.
func publishForever(dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	keys, err := apt.ParseKeys(text, nil)
	if err != nil {
		return err
	}
	site := filepath.Join(dir, "apt")
	at, err := dateOf(site)
	if err != nil {
		return err
	}
	for {
		at = at.Add(time.Second)
		name := fmt.Sprintf("thing%d", at.Unix())
		// The pool may link one of the previous round.
		if err := os.RemoveAll(filepath.Join(dir, name+".deb")); err != nil {
			return err
		}
		deb, err := debgen.Package{
			Control: debgen.Control(name, "1.0-1"), Compression: ".zst", Files: map[string]string{"usr/share/" + name: "body"},
		}.Write(dir, name+".deb")
		if err != nil {
			return err
		}
		if err := apt.Publish(context.Background(), options(site, keys, at, deb)); err != nil {
			return err
		}
		fmt.Println(at.Unix())
	}
}

var dateField = regexp.MustCompile(`(?m)^Date: (.*)$`)

// dateOf returns the date that clients of a repository see.
func dateOf(site string) (time.Time, error) {
	text, err := os.ReadFile(filepath.Join(site, "dists/stable/InRelease"))
	if err != nil {
		return time.Time{}, err
	}
	m := dateField.FindSubmatch(text)
	if m == nil {
		return time.Time{}, fmt.Errorf("InRelease has no date")
	}
	return time.Parse(time.RFC1123, string(m[1]))
}

// Parts of a publish in the order in which they are written. Clients see neither
// until InRelease is written.
const (
	packages   = "packages"
	generation = "generation" // the last part before the files that clients read first
)

// partPath returns the path of a part of the publish at a date.
func partPath(site, part string, at time.Time) string {
	if part == generation {
		return filepath.Join(site, "dists/stable/generations", strconv.FormatInt(at.Unix(), 10))
	}
	name := fmt.Sprintf("thing%d", at.Unix())
	return filepath.Join(site, "pool/main/t", name, name+"_1.0-1_amd64.deb")
}

// interruptedAfter returns the last written part of a publish that clients do not
// see yet, or "".
func interruptedAfter(site string, seen time.Time) string {
	for _, part := range []string{generation, packages} {
		if _, err := os.Stat(partPath(site, part, seen.Add(time.Second))); err == nil {
			return part
		}
	}
	return ""
}

// publishAndKill runs a publisher and kills it after two publishes: once the given
// part of the third is written, or, if part is empty, after the given fraction of
// the time that the second publish took.
func publishAndKill(t *testing.T, dir, part string, fraction float64) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "APT_TEST_PUBLISH="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	published := bufio.NewScanner(out)
	one := published.Scan()
	start := time.Now()
	if !one || !published.Scan() {
		t.Fatalf("the publisher exited early: %v", cmd.Wait())
	}
	took := time.Since(start)
	at, err := strconv.ParseInt(published.Text(), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for published.Scan() { // drain the output until the kill
		}
	}()
	if part == "" {
		time.Sleep(time.Duration(fraction * float64(took)))
	} else {
		waitForFile(t, partPath(filepath.Join(dir, "apt"), part, time.Unix(at+1, 0)), ended)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatalf("the publisher exited early: %v", err)
	}
	<-ended
	_ = cmd.Wait() // killed
}

// waitForFile returns as soon as a file exists.
func waitForFile(t *testing.T, name string, ended <-chan struct{}) {
	t.Helper()
	for {
		if _, err := os.Stat(name); err == nil {
			return
		}
		select {
		case <-ended:
			t.Fatal("the publisher exited early")
		default:
			runtime.Gosched()
		}
	}
}

// TestPublishSurvivesKill kills a publisher at many moments, until it has been
// interrupted both between packages and indexes and right before InRelease. Clients
// then see the complete previous repository, and the next publisher continues.
func TestPublishSurvivesKill(t *testing.T) {
	dir, key := t.TempDir(), newKey(t, nil)
	overwrite(t, filepath.Join(dir, "key"), string(export(t, key, true)))
	site := filepath.Join(dir, "apt")
	publish(t, options(site, keysOf(t, key), first))
	c := client{dir: site, keys: openpgp.EntityList{key}}
	seen := map[string]int{}
	last := first
	minRounds, maxRounds := cases.Of(3, 6, 12), 90 // three are one of each kind; a round takes a second
	for round := 0; round < minRounds || seen[packages] == 0 || seen[generation] == 0; round++ {
		if round == maxRounds {
			t.Fatalf("killed %d times, interrupted after: %v", maxRounds, seen)
		}
		_, fraction := math.Modf(float64(round) * math.Phi) // covers the interval evenly
		publishAndKill(t, dir, []string{"", packages, generation}[round%3], fraction)
		at, err := dateOf(site)
		if err != nil {
			t.Fatal(err)
		}
		if !at.After(last.Add(time.Second)) {
			t.Fatalf("round %d: two publishes after %s, clients see that of %s", round, last, at)
		}
		last = at
		seen[interruptedAfter(site, at)]++
		sums, err := c.update()
		if err == nil {
			err = c.fetch(sums)
		}
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("interrupted after: %v", seen)
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
			t.Errorf("left behind: %s", name)
		}
	}
}
