package supervise

import (
	"errors"
	"os"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func TestProbeFlagsAndAdapt(t *testing.T) {
	script := fakellama.Script{Process: fakellama.Process{OldFlags: []string{"--offline", "--kv-unified"}}}
	env, err := script.Env()
	if err != nil {
		t.Fatal(err)
	}
	name, value, _ := strings.Cut(env, "=")
	t.Setenv(name, value)
	t.Setenv(roleName, roleServer)
	t.Setenv(EnvInherit, name+","+roleName)
	cache := t.TempDir()
	probe := Probe{Argv: []string{os.Args[0]}, CacheDir: cache, Dir: t.TempDir()}
	flags, err := ProbeFlags(t.Context(), probe)
	if err != nil {
		t.Fatal(err)
	}
	if flags.Has("--offline") || !flags.Has("--ctx-size") || !flags.TakesValue["--ctx-size"] {
		t.Fatalf("%d flags, or wrong ones", len(flags.TakesValue))
	}
	spec := fakeSpec(t, roleServer, script)
	spec.Flags, spec.Args = flags, []string{"--ctx-size", "512", "--offline", "--kv-unified"}
	c := mustStart(t, spec)
	if d := c.Diagnose(); len(d.FlagNotes) != 2 || strings.Contains(strings.Join(d.Argv, " "), "--offline") {
		t.Errorf("adapted %q, ran %q", d.FlagNotes, d.Argv)
	}
	// The second call runs nothing: the result is cached by the file's content.
	t.Setenv(roleName, roleParent)
	second, err := ProbeFlags(t.Context(), probe)
	if err != nil || len(second.TakesValue) != len(flags.TakesValue) {
		t.Errorf("the cached result: %v", err)
	}
	// If the flag is not dropped, the old server rejects it.
	spec = fakeSpec(t, roleServer, script)
	spec.Args = []string{"--offline"}
	if _, err := Start(t.Context(), spec); !errors.Is(err, ErrBadArgument) {
		t.Errorf("got %v, want ErrBadArgument", err)
	}
}
