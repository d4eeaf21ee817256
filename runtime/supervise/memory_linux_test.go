package supervise

import (
	"errors"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
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
