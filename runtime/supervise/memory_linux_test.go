package supervise

import (
	"context"
	"errors"
	"math"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// A program that allocates without end while it loads, as llama-server does with
// some chat templates, is killed at the limit, and not started again.
func TestLoadingMemoryIsLimited(t *testing.T) {
	spec := fakeSpec(t, roleHungry, fakellama.Script{LoadForever: true})
	spec.LoadingMemory, spec.Restart = 256<<20, RestartOnFailure()
	child, err := Start(t.Context(), spec)
	var exit *ExitError
	if child != nil || !errors.Is(err, ErrMemoryLimit) || !errors.As(err, &exit) {
		t.Fatalf("got %v, want ErrMemoryLimit", err)
	}
	if errors.Is(err, ErrOutOfMemory) {
		t.Errorf("%v counts as a lack of memory, for which less is asked", err)
	}
	if exit.Signal != syscall.SIGKILL || !strings.Contains(exit.Line, "the limit is 256 MiB") || !strings.Contains(exit.Remedy, "chat template") {
		t.Errorf("%v", err)
	}
	entries, err := os.ReadDir(spec.SocketDir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%d entries are left in the socket directory, %v", len(entries), err)
	}
}

// The limit holds for a trial of the arguments, too: it runs the template of a file.
func TestTrialMemoryIsLimited(t *testing.T) {
	spec := fakeSpec(t, roleHungry, fakellama.Script{})
	if err := TryArgs(t.Context(), spec); !errors.Is(err, ErrMemoryLimit) || !strings.Contains(err.Error(), "chat template") {
		t.Errorf("got %v, want ErrMemoryLimit", err)
	}
}

// A program that allocates without end while it serves, as llama-server does with some
// chat templates for some messages, is killed before the host's memory is used up, and
// started again. The request that ran is suspect.
func TestServingMemoryIsLimited(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(t, roleGrowing, fakellama.Script{})
	spec.LoadingMemory, spec.Restart = 256<<20, RestartOnFailure()
	spec.Restart.MinBackoff = time.Millisecond
	spec.HostMemory = func() (usable, available uint64) { return 1 << 40, 1 << 30 }
	c := mustStart(t, spec)
	pid := c.Pid()
	_, err := readAll(t.Context(), c)
	var exit *ExitError
	if !errors.As(err, &exit) || !errors.Is(err, ErrHostMemory) || !errors.Is(err, ErrCrashed) || !IsSuspect(err) || IsPermanent(err) {
		t.Fatalf("got %v, want a crash with ErrHostMemory", err)
	}
	if !strings.Contains(exit.Line, "1024 MiB were left") || !strings.Contains(exit.Remedy, "chat template") {
		t.Errorf("%v", err)
	}
	poll.Until(t, "another process", func() bool { return c.State() == Ready && c.Pid() != pid })
}

// What watched a process has ended when its specification is revised for the next one.
func TestWatchersEndBeforeARevision(t *testing.T) {
	t.Parallel()
	spec := fakeSpec(t, roleGrowing, fakellama.Script{})
	spec.LoadingMemory, spec.Restart = 256<<20, RestartOnFailure()
	spec.Restart.MinBackoff = time.Millisecond
	reads, release, revised := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	spec.HostMemory = func() (usable, available uint64) {
		once.Do(func() {
			close(reads)
			<-release
		})
		return 1 << 40, 1 << 40
	}
	var reported sync.Once
	spec.Restart.Revise = func(context.Context, error) *Spec {
		reported.Do(func() { close(revised) })
		return nil
	}
	c := mustStart(t, spec)
	go func() { _, _ = readAll(t.Context(), c) }()
	<-reads
	if err := syscall.Kill(c.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-revised:
		t.Error("the specification was revised while a watcher read it")
	case <-time.After(200 * time.Millisecond):
	}
	close(release)
	<-revised
}

func TestMemoryLeft(t *testing.T) {
	const mib = 1 << 20
	for name, tt := range map[string]struct {
		allocated         int64
		usable, available uint64
		left              int64
		short             bool
	}{
		"unknown":                  {4096 * mib, 0, 0, 0, false},
		"enough":                   {4096 * mib, 16384 * mib, 513 * mib, 513 * mib, false},
		"a thirty-second":          {4096 * mib, 16384 * mib, 511 * mib, 511 * mib, true},
		"a small machine":          {1024 * mib, 2048 * mib, 255 * mib, 255 * mib, true},
		"a small machine, enough":  {1024 * mib, 2048 * mib, 257 * mib, 257 * mib, false},
		"a large machine":          {4096 * mib, 1 << 40, 2047 * mib, 2047 * mib, true},
		"a large machine, enough":  {4096 * mib, 1 << 40, 2049 * mib, 2049 * mib, false},
		"a control group is full":  {8000 * mib, 8192 * mib, 1 << 40, 192 * mib, true},
		"a control group exceeded": {9000 * mib, 8192 * mib, 1 << 40, 0, true},
		"beyond int64":             {mib, math.MaxUint64, math.MaxUint64, math.MaxInt64 - mib, false},
	} {
		if left, short := memoryLeft(tt.allocated, tt.usable, tt.available); left != tt.left || short != tt.short {
			t.Errorf("%s: %d MiB are left, short: %v; want %d MiB, %v", name, left>>20, short, tt.left>>20, tt.short)
		}
	}
}

// A program that stays below the limit is not disturbed.
func TestLoadingMemoryAllowsWhatIsNeeded(t *testing.T) {
	spec := fakeSpec(t, roleServer, fakellama.Script{Reply: "yes"})
	spec.LoadingMemory = 1 << 30
	c := mustStart(t, spec)
	if got := anonymousMemory(c.Pid()); got <= 0 || got > spec.LoadingMemory {
		t.Errorf("the fake server uses %d bytes", got)
	}
	if text, err := readAll(t.Context(), c); err != nil || !strings.Contains(text, `"stop":true`) {
		t.Errorf("%q, %v", text, err)
	}
}

func TestParseAnonymous(t *testing.T) {
	for text, want := range map[string]int64{
		"Name:\tRssAnon: 7 kB\nVmRSS:\t  400 kB\nRssAnon:\t     100 kB\nRssFile:\t 300 kB\nVmSwap:\t 28 kB\n": 128 << 10,
		"RssAnon:\n": 0, "RssAnon: x kB\n": 0, "RssAnon: 99999999999999999999 kB\n": 0, "": 0,
	} {
		if got := parseAnonymous([]byte(text)); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

const (
	mountV1 = "32 25 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:14 - cgroup cgroup rw,memory\n" +
		"33 25 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
	mountV2 = "26 22 0:23 / /sys/fs/cgroup rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)

func TestOOMCounters(t *testing.T) {
	for name, tt := range map[string]struct {
		groups, mounts string
		want           []string
	}{
		"v2 service":        {"0::/system.slice/go-rocm.service\n", mountV2, []string{"/sys/fs/cgroup/system.slice/go-rocm.service/memory.events"}},
		"v2 container":      {"0::/\n", mountV2, []string{"/sys/fs/cgroup/memory.events"}},
		"v1 service":        {"9:memory:/system.slice/go-rocm.service\n4:cpu,cpuacct:/\n", mountV1, []string{"/sys/fs/cgroup/memory/system.slice/go-rocm.service/memory.oom_control"}},
		"v1 container":      {"9:memory:/docker/abc\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", []string{"/sys/fs/cgroup/memory/memory.oom_control"}},
		"below a mount":     {"9:memory:/docker/abc/inner\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", []string{"/sys/fs/cgroup/memory/inner/memory.oom_control"}},
		"another's mount":   {"9:memory:/docker/abcd\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", nil},
		"both":              {"9:memory:/a\n0::/b\n", mountV1 + mountV2, []string{"/sys/fs/cgroup/memory/a/memory.oom_control", "/sys/fs/cgroup/b/memory.events"}},
		"outside namespace": {"0::/../other\n", mountV2, nil},
		"nothing mounted":   {"0::/a\n", "", nil},
		"empty cgroup file": {"", mountV1 + mountV2, nil},
		"torn":              {"0::\n9:memory\n", "32 25 0:29\n- cgroup2\n", nil},
	} {
		if got := oomCounters(tt.groups, tt.mounts); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func FuzzOOMCounters(f *testing.F) {
	f.Add("0::/a\n9:memory:/b\n", mountV1+mountV2)
	f.Add("9:memory:/docker/abc\n", "32 25 0:29 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n")
	f.Fuzz(func(t *testing.T, groups, mounts string) {
		for _, name := range oomCounters(groups, mounts) {
			if base := path.Base(name); base != "memory.events" && base != "memory.oom_control" {
				t.Errorf("%q", name)
			}
		}
	})
}
