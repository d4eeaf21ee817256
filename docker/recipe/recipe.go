package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// Recipe has the settings and services of all steps.
type Recipe struct {
	Engine    engine.Engine
	Cache     *stage.Cache
	Lock      Lock
	Source    string // a path given by the user, or empty
	Targets   []gfx.Target
	CMake     []string
	Jobs      int
	Memory    int64 // bytes, 0: no limit
	Toolchain toolchain.Spec
	Log       io.Writer
	Progress  Progress
}

// Progress opens the log of a long step.
type Progress interface {
	Open(step string) (io.WriteCloser, error)
}

func (r *Recipe) toolchainSpec(set toolchain.Set) toolchain.Spec {
	s := r.Toolchain
	s.Set = set
	if set == toolchain.UI { // an image for compiling has no Node.js, or an old one
		s.Kind, s.BaseImage = "debian", ""
	}
	return s
}

// Compile fetches the source and compiles the components of a variant.
func (r *Recipe) Compile(ctx context.Context, v Variant) (map[string]*stage.Result, error) {
	src, err := Source(ctx, r.Cache, r.Lock, r.Source, r.Log)
	if err != nil {
		return nil, err
	}
	all := components(r.Lock, r.Targets)
	var list []Component
	for _, name := range v.Components {
		c, ok := all[name]
		if !ok {
			return nil, fmt.Errorf("variant %s names the component %q, which does not exist", v.Name, name)
		}
		list = append(list, c)
	}
	return r.compileAll(ctx, list, src)
}

// compileAll compiles components one after the other. While one is compiled, it prepares
// the toolchain of the next: that is mostly downloading and unpacking. If the preparation
// fails, the compile ends with its error.
func (r *Recipe) compileAll(ctx context.Context, list []Component, src *stage.Result) (map[string]*stage.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := map[string]*stage.Result{}
	var next *preparation
	for i, c := range list {
		var t *toolchain.Toolchain
		var err error
		if next == nil {
			t, err = r.prepare(ctx, c, src)
		} else {
			t, err = r.await(next, c)
		}
		if err != nil {
			return nil, err
		}
		next = nil
		if i+1 < len(list) {
			next = r.startPreparation(ctx, cancel, list[i+1], src)
		}
		if done[c.Name], err = r.compile(ctx, c, src, t); err != nil {
			if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
				err = cause // the preparation has failed
			}
			if next != nil { // it must not run on, and removes what it has unpacked
				cancel(err)
				<-next.done
			}
			return nil, err
		}
	}
	return done, nil
}

// preparation is a toolchain that is being prepared. The other fields are set when done
// is closed.
type preparation struct {
	done chan struct{}
	t    *toolchain.Toolchain
	err  error
}

// startPreparation prepares the toolchain of a component in the background: it describes
// it, and makes sure that the engine has it if the component has to be compiled.
func (r *Recipe) startPreparation(ctx context.Context, cancel context.CancelCauseFunc, c Component, src *stage.Result) *preparation {
	p := &preparation{done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if p.t, p.err = r.prepare(ctx, c, src); p.err != nil {
			cancel(p.err)
		}
	}()
	return p
}

func (r *Recipe) prepare(ctx context.Context, c Component, src *stage.Result) (*toolchain.Toolchain, error) {
	t, err := toolchain.Describe(ctx, r.Engine, r.Cache, r.toolchainSpec(c.Set), r.Log)
	if err != nil {
		return nil, err
	}
	in, err := r.compileInputs(c, src, t)
	if err != nil {
		return nil, err
	}
	if _, ok, err := r.Cache.Lookup(compileStage(c), in); ok || err != nil {
		return t, err
	}
	return t, toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(c.Set), t, r.Log)
}

// await returns the toolchain that is being prepared for a component. If that takes time,
// the log tells what the build waits for; one that the cache and the engine have is ready
// at once.
func (r *Recipe) await(p *preparation, c Component) (*toolchain.Toolchain, error) {
	select {
	case <-p.done:
	case <-time.After(time.Second):
		if _, err := fmt.Fprintf(r.Log, "%s: waiting for the toolchain %s\n", compileStage(c), c.Set); err != nil {
			return nil, err
		}
		<-p.done
	}
	return p.t, p.err
}
