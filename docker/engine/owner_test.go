package engine

import "testing"

func TestOwnerEnded(t *testing.T) {
	me := owner{machine: "1f2e", boot: "b1", space: "pid:[1]", pid: 10, start: "100"}
	container := owner{machine: "host:ci", boot: "b1", space: "pid:[7]", pid: 1, start: "500"}
	running := map[int]string{10: "100", 11: "110", 1: "500"}
	with := func(o owner, change func(*owner)) owner { change(&o); return o }
	for _, tc := range []struct {
		name string
		of   owner
		me   owner
		want bool
	}{
		{"myself", me, me, false},
		{"another that runs", with(me, func(o *owner) { o.pid, o.start = 11, "110" }), me, false},
		{"one that is gone", with(me, func(o *owner) { o.pid = 12 }), me, true},
		{"one whose number was given anew", with(me, func(o *owner) { o.pid = 11 }), me, true},
		{"of the boot before", with(me, func(o *owner) { o.boot = "b0" }), me, true},
		{"of another machine", with(me, func(o *owner) { o.machine, o.pid = "9a8b", 12 }), me, false},
		{"in a container beside this one, of the same host name", with(container, func(o *owner) { o.space, o.pid = "pid:[8]", 12 }), container, false},
		{"gone in this container", with(container, func(o *owner) { o.pid = 12 }), container, true},
		{"of a host of the same name", with(container, func(o *owner) { o.boot, o.pid = "b0", 12 }), container, false},
	} {
		of, ok := parseOwner(tc.of.String())
		if !ok || of != tc.of {
			t.Errorf("%s: %q is read as %+v", tc.name, tc.of, of)
		}
		if got := of.hasExited(tc.me, func(pid int) string { return running[pid] }); got != tc.want {
			t.Errorf("%s: ended %v, want %v", tc.name, got, tc.want)
		}
	}
	for _, label := range []string{"", "host/12/34", "a/b/c/pid/e", "a/b/c/1/e/f"} {
		if o, ok := parseOwner(label); ok {
			t.Errorf("%q is read as %+v", label, o)
		}
	}
}
