//go:build linux && amd64

package rocm_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// starts returns a script that runs body at each start, with the number of the start
// in $n, from 1. The commands no_vram and no_ram in body fail the start for lack of
// memory on the GPU or in the host. recorded returns the arguments about memory of
// each start.
func starts(t *testing.T, body string) (script string, recorded func() []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "starts")
	script = fmt.Sprintf(`fail() { echo "$1" >&2; exit 1; }
no_vram() { fail 'ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory'; }
no_ram() { fail 'terminate called after throwing an instance of std::bad_alloc'; }
case "$*" in *--help*) ;; *)
echo "$*" >>%s
n=$(wc -l <%s)
%s;;
esac`, file, file, body)
	memory := regexp.MustCompile(`--(ctx-size|cache-type-k|gpu-layers|fit-target|device) \S+`)
	return script, func() []string {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for line := range strings.Lines(string(raw)) {
			out = append(out, strings.Join(memory.FindAllString(line, -1), " "))
		}
		return out
	}
}

// Where the GPU lacks memory, each next start needs less of it, until the model runs on
// the CPU. Where the host lacks memory, loading fails: each next step would need more of
// it. The restart policy does not repeat a plan that did not fit.
func TestOutOfMemoryWhileLoading(t *testing.T) {
	ladder := []string{
		"--device ROCm0 --fit-target 2014",
		"--device ROCm0 --fit-target 3038",
		"--cache-type-k q8_0 --device ROCm0 --fit-target 3038",
		"--ctx-size 16384 --cache-type-k q8_0 --device ROCm0 --fit-target 3038",
		"--ctx-size 16384 --cache-type-k q8_0 --device ROCm0 --gpu-layers 23 --fit-target 3038",
		"--ctx-size 16384 --cache-type-k q8_0 --device none --gpu-layers 0",
	}
	for name, c := range map[string]struct {
		body    string
		gpu     bool // required
		starts  int
		err     error
		restart bool
	}{
		"enough":                     {"true", false, 1, nil, false},
		"once":                       {"[ $n != 1 ] || no_vram", false, 2, nil, false},
		"always":                     {`case "$*" in *ROCm0*) no_vram;; esac`, false, 6, nil, false},
		"always, as a service":       {`case "$*" in *ROCm0*) no_vram;; esac`, false, 6, nil, true},
		"always, with a GPU needed":  {"no_vram", true, 5, supervise.ErrOutOfMemory, false},
		"always, and the host's":     {`case "$*" in *ROCm0*) no_vram;; esac; no_ram`, false, 6, supervise.ErrHostMemory, true},
		"of the host":                {"no_ram", false, 1, supervise.ErrHostMemory, false},
		"the GPU's, then the host's": {"[ $n = 1 ] && no_vram; no_ram", false, 2, supervise.ErrHostMemory, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			script, recorded := starts(t, c.body)
			fake := fakebundle.New(t, fakellama.Script{})
			fake.AddGPUModule(t)
			fake.Before(t, script)
			var logged bytes.Buffer
			s := rocm.Settings{Bundle: fake.Dir}
			s.Restart = rocm.Restart{Disabled: !c.restart, MinBackoff: time.Millisecond}
			s.Devices.Required = c.gpu
			s.SysRoot, s.Log = sysRoot(t, "rx7900xtx"), slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
			srv, err := rocm.Launch(t.Context(), fake.Model, s)
			if !errors.Is(err, c.err) || (c.err == nil && err != nil) {
				t.Errorf("got %v, want %v", err, c.err)
			}
			if err == nil {
				if srv.Plan.GPU != (c.starts < len(ladder)) {
					t.Errorf("gpu %v", srv.Plan.GPU)
				}
				if err := srv.Close(); err != nil {
					t.Error(err)
				}
			}
			if d := cmp.Diff(ladder[:c.starts], recorded()); d != "" {
				t.Errorf("starts (-want +got):\n%s", d)
			}
			if got := strings.Count(logged.String(), "retrying with less memory"); got != c.starts-1 {
				t.Errorf("%d steps were logged: %s", got, &logged)
			}
		})
	}
}
