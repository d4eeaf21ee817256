//go:build linux && amd64

package rocm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm"
	"forge.lthn.ai/core/go-rocm/runtime/scheduler"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakebundle"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
	"forge.lthn.ai/core/go-rocm/testing/sysroot"
)

func openPool(t *testing.T, s rocm.PoolSettings) *rocm.Pool {
	t.Helper()
	p, err := rocm.NewPool(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// poolModels returns models of the same file and bundle that differ in their context.
func poolModels(b *fakebundle.Bundle, names ...string) map[string]rocm.PoolModel {
	models := map[string]rocm.PoolModel{}
	for i, name := range names {
		m := rocm.PoolModel{Path: b.Model}
		m.Bundle, m.Context, m.Slots = b.Dir, 1024*(i+1), 2
		models[name] = m
	}
	return models
}

// lease acquires a model, whose server must have the model's name.
func lease(t *testing.T, p *rocm.Pool, name string) *rocm.Lease {
	t.Helper()
	l, err := p.Acquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if props, err := l.Model().API().Props(t.Context()); err != nil || props.ModelAlias != l.Name() {
		t.Fatalf("%s is answered by %q, %v", name, props.ModelAlias, err)
	}
	return l
}

func pid(l *rocm.Lease) int { return l.Model().Server().Child.Pid() }

func state(t *testing.T, p *rocm.Pool, name string) rocm.ModelStatus {
	t.Helper()
	s, err := p.Status(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// waitState waits until a model is in a state.
func waitState(t *testing.T, p *rocm.Pool, name string, want rocm.ModelState) rocm.ModelStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changes := p.Watch(ctx)
	for {
		s := state(t, p, name)
		if s.State == want {
			return s
		}
		if _, ok := <-changes; !ok {
			t.Fatalf("%s is %s (%v), want %s", name, s.State, s.Cause, want)
		}
	}
}

func TestPoolNamesOfOneModelShareAProcess(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	link := filepath.Join(t.TempDir(), "link.gguf")
	if err := os.Symlink(fake.Model, link); err != nil {
		t.Fatal(err)
	}
	models := poolModels(fake, "a", "b")
	same := models["a"]
	same.Path = link
	models["c"] = same
	b := models["b"]
	b.Aliases = []string{"bee"}
	models["b"] = b
	p := openPool(t, rocm.PoolSettings{Models: models, SysRoot: sysRoot(t, "none"), Default: "a"})
	pids := map[string]int{}
	for _, name := range []string{"a", "b", "c", "bee", ""} {
		l := lease(t, p, name)
		defer l.Release()
		pids[name] = pid(l)
	}
	if pids["a"] != pids["c"] || pids["a"] != pids[""] || pids["b"] != pids["bee"] || pids["a"] == pids["b"] {
		t.Errorf("processes %v", pids)
	}
	for name, want := range map[string]error{"d": rocm.ErrUnknownModel} {
		if _, err := p.Acquire(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if list := p.List(); len(list) != 2 || list[0].Name != "a" || len(list[0].Aliases) != 1 || list[1].Leases != 2 || list[1].State != rocm.ModelLoaded {
		t.Errorf("%+v", list)
	}
}

func TestPoolModelFailsAlone(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	models := poolModels(fake, "a", "b")
	for name, m := range models {
		m.Restart.Disabled = true
		models[name] = m
	}
	p := openPool(t, rocm.PoolSettings{Models: models, SysRoot: sysRoot(t, "none"), MinBackoff: 2 * time.Second})
	a, b := lease(t, p, "a"), lease(t, p, "b")
	defer b.Release()
	if err := syscall.Kill(pid(a), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s := waitState(t, p, "a", rocm.ModelFailed)
	var exit *supervise.ExitError
	if !errors.As(s.Cause, &exit) || exit.Signal != syscall.SIGKILL || s.Leases != 0 {
		t.Errorf("%v, %d leases", s.Cause, s.Leases)
	}
	_, err := p.Acquire(t.Context(), "a")
	var failed *scheduler.FailedError
	if !errors.As(err, &failed) || !errors.As(err, &exit) {
		t.Fatalf("in the backoff: %v", err)
	}
	lease(t, p, "b").Release()
	poll.Until(t, "the end of the backoff", func() bool {
		retry, err := p.Acquire(t.Context(), "a")
		if err != nil {
			return false
		}
		retry.Release()
		return true
	})
	if now := time.Now(); now.Before(failed.RetryAt) {
		t.Errorf("retried %v before the end of the backoff", failed.RetryAt.Sub(now))
	}
	a.Release()
}

func TestPoolKilledProcessIsRestarted(t *testing.T) {
	t.Parallel()
	b := fakebundle.New(t, fakellama.Script{Reply: "a b c"})
	p := openPool(t, rocm.PoolSettings{SysRoot: sysRoot(t, "none"), Models: poolModels(b, "a")})
	l := lease(t, p, "")
	defer l.Release()
	before := pid(l)
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if tokens := collect(l.Model().Generate(t.Context(), "x")); text(tokens) != "a b c" || pid(l) == before {
		t.Errorf("%q from process %d after %d", text(tokens), pid(l), before)
	}
	if s := state(t, p, "a"); s.Leases != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPoolConfigure(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	s := rocm.PoolSettings{SysRoot: sysRoot(t, "none"), Models: poolModels(fake, "same", "changed", "removed")}
	p := openPool(t, s)
	leases := map[string]*rocm.Lease{}
	pids := map[string]int{}
	for name := range s.Models {
		leases[name] = lease(t, p, name)
		pids[name] = pid(leases[name])
	}
	next := s
	next.Models = poolModels(fake, "same", "changed")
	changed := next.Models["changed"]
	changed.Context = 512
	next.Models["changed"] = changed
	next.Models["broken"] = rocm.PoolModel{Path: fake.Model + ".missing"}
	var mistake *rocm.PoolModelError
	if _, err := p.Configure(next); !errors.As(err, &mistake) || mistake.Name != "broken" || !errors.Is(err, rocm.ErrModelFile) || len(p.List()) != 3 {
		t.Fatalf("%v, %d models", err, len(p.List()))
	}
	delete(next.Models, "broken")
	changes, err := p.Configure(next)
	if err != nil || strings.Join(changes, "; ") != "changed has other settings or another file; removed is removed" {
		t.Fatalf("%q, %v", changes, err)
	}
	if _, err := p.Acquire(t.Context(), "removed"); !errors.Is(err, rocm.ErrUnknownModel) {
		t.Errorf("removed: %v", err)
	}
	for name, l := range leases { // what runs is finished
		if got := text(collect(l.Model().Generate(t.Context(), "x"))); l.Model().Err() != nil || pid(l) != pids[name] {
			t.Errorf("%s: %q, %v", name, got, l.Model().Err())
		}
		l.Release()
	}
	for name, restarted := range map[string]bool{"same": false, "changed": true} {
		l := lease(t, p, name)
		if (pid(l) != pids[name]) != restarted {
			t.Errorf("%s: process %d, before %d", name, pid(l), pids[name])
		}
		l.Release()
	}
	for _, name := range []string{"changed", "removed"} {
		poll.Until(t, "the end of "+name, func() bool { return syscall.Kill(pids[name], 0) != nil })
	}
}

func TestPoolPinnedAndIdle(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	models := poolModels(fake, "pinned", "idle")
	pinned, idle := models["pinned"], models["idle"]
	pinned.Pinned, pinned.IdleUnload = true, time.Millisecond
	idle.IdleUnload = time.Second
	models["pinned"], models["idle"] = pinned, idle
	p := openPool(t, rocm.PoolSettings{SysRoot: sysRoot(t, "none"), Models: models})
	waitState(t, p, "pinned", rocm.ModelLoaded)
	if err := p.Unload(t.Context(), "pinned"); !errors.Is(err, rocm.ErrPinned) {
		t.Errorf("pinned: %v", err)
	}
	if err := p.Unload(t.Context(), "idle"); !errors.Is(err, rocm.ErrNotLoaded) {
		t.Errorf("not loaded: %v", err)
	}
	if _, err := p.AcquireWith(t.Context(), rocm.AcquireRequest{Name: "idle", LoadedOnly: true}); !errors.Is(err, rocm.ErrNotLoaded) {
		t.Errorf("loaded only: %v", err)
	}
	if err := p.Load(t.Context(), "idle"); err != nil {
		t.Fatal(err)
	}
	waitState(t, p, "idle", rocm.ModelUnloaded)
	if s := state(t, p, "pinned"); s.State != rocm.ModelLoaded {
		t.Errorf("pinned is %s", s.State)
	}
}

// OnUnload is called once for each model that is unloaded, with the cause, before the
// model is gone.
func TestPoolReportsUnloads(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	models := poolModels(fake, "idle", "request", "settings")
	idle := models["idle"]
	idle.IdleUnload = time.Second
	models["idle"] = idle
	unloads := make(chan string, 10)
	s := rocm.PoolSettings{SysRoot: sysRoot(t, "none"), Models: models, OnUnload: func(model string, cause scheduler.UnloadCause) { unloads <- model + ": " + string(cause) }}
	p := openPool(t, s)
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-unloads:
			if got != want {
				t.Errorf("%s, want %s", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatalf("no unload was reported, want %s", want)
		}
	}
	for name := range models {
		if err := p.Load(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	expect("idle: " + string(scheduler.UnloadIdle))
	if err := p.Unload(t.Context(), "request"); err != nil {
		t.Fatal(err)
	}
	expect("request: " + string(scheduler.UnloadRequest))
	s.Models = map[string]rocm.PoolModel{"idle": models["idle"], "request": models["request"]}
	if _, err := p.Configure(s); err != nil {
		t.Fatal(err)
	}
	expect("settings: " + string(scheduler.UnloadSettings))
	waitState(t, p, "idle", rocm.ModelUnloaded)
	select {
	case got := <-unloads:
		t.Errorf("one more: %s", got)
	default:
	}
}

func TestPoolClose(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{LoadTime: time.Minute})
	p, err := rocm.NewPool(rocm.PoolSettings{SysRoot: sysRoot(t, "none"), Models: poolModels(fake, "a")})
	if err != nil {
		t.Fatal(err)
	}
	loading := make(chan struct{}, 100)
	waiting := make(chan error)
	go func() {
		_, err := p.AcquireWith(t.Context(), rocm.AcquireRequest{Name: "a", Progress: func(rocm.LoadProgress) { loading <- struct{}{} }})
		waiting <- err
	}()
	<-loading
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-waiting; !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, err := p.Acquire(t.Context(), "a"); !errors.Is(err, rocm.ErrClosed) {
		t.Errorf("%v", err)
	}
	if _, ok := <-p.Watch(t.Context()); ok {
		t.Error("a closed pool has changes")
	}
}

// Clients use three models, of which two fit, while processes are killed: every
// client is answered by the model that it asked for.
func TestPoolUnderLoad(t *testing.T) {
	t.Parallel()
	fake := fakebundle.New(t, fakellama.Script{})
	root := sysroot.Write(t, "none", map[string]string{"proc/meminfo": "MemTotal: 67108864 kB\n"})
	models := poolModels(fake, "a", "b", "c")
	names := []string{"a", "b", "c"}
	s := models["c"].Settings
	s.SysRoot = root
	planned, err := rocm.Plan(fake.Model, s)
	if err != nil {
		t.Fatal(err)
	}
	p := openPool(t, rocm.PoolSettings{Models: models, SysRoot: root, MinResidency: -1, Patience: 100 * time.Millisecond, HostMemory: planned.Host.Used() * 11 / 4})
	var clients sync.WaitGroup
	for client := range 6 {
		clients.Go(func() {
			for round := range 12 {
				name := names[(client+round)%3]
				l, err := p.Acquire(t.Context(), name)
				if err != nil {
					t.Error(err)
					return
				}
				props, err := l.Model().API().Props(t.Context())
				if err == nil && props.ModelAlias != name {
					t.Errorf("%s is answered by %s", name, props.ModelAlias)
				}
				if client == 0 && round%4 == 3 {
					_ = syscall.Kill(pid(l), syscall.SIGKILL)
				}
				l.Release()
			}
		})
	}
	clients.Wait()
	for _, m := range p.List() {
		if m.Leases != 0 || m.Waiting != 0 {
			t.Errorf("%s has %d leases, %d wait", m.Name, m.Leases, m.Waiting)
		}
	}
}
