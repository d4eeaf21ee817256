package recipe

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

// jobs is an engine that records its jobs and has the images that they commit.
type jobs struct {
	engine.Engine
	run func(ctx context.Context, job engine.Job) error

	mu     sync.Mutex
	names  []string
	images map[string]bool
}

func (e *jobs) Image(_ context.Context, ref string) (engine.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.images[ref] {
		return engine.Image{}, engine.ErrNoImage
	}
	return engine.Image{ID: ref}, nil
}

func (e *jobs) Run(ctx context.Context, job engine.Job) error {
	e.mu.Lock()
	e.names = append(e.names, job.Name+" "+job.CommitAs)
	e.mu.Unlock()
	if err := e.run(ctx, job); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if job.CommitAs != "" {
		e.images[job.CommitAs] = true
	}
	return nil
}

func (e *jobs) Files(context.Context, string) (engine.Files, error) { return packageList{}, nil }

// packageList is the file with the packages of an image.
type packageList struct{ engine.Files }

func (packageList) Close() error { return nil }
func (packageList) Walk(_ context.Context, _ string, visit func(*tar.Header, io.Reader) error) error {
	return visit(&tar.Header{Typeflag: tar.TypeReg}, strings.NewReader("Package: gcc\nVersion: 1\nArchitecture: amd64\n"))
}

// logs is the display of the steps.
type logs struct{}

type discard struct{ io.Writer }

func (discard) Close() error                     { return nil }
func (logs) Open(string) (io.WriteCloser, error) { return discard{io.Discard}, nil }

// twoComponents returns a recipe on an engine that has a base image, two components with
// different toolchains and the source.
func twoComponents(t *testing.T, run func(context.Context, engine.Job) error) (*Recipe, *jobs, []Component, *stage.Result) {
	t.Helper()
	cache, err := stage.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	src := t.TempDir()
	for _, name := range []string{"CMakeLists.txt", "ggml/CMakeLists.txt"} {
		path := filepath.Join(src, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	e := &jobs{run: run, images: map[string]bool{"base": true}}
	r := &Recipe{
		Engine: e, Cache: cache, Jobs: 1, Log: &bytes.Buffer{}, Progress: logs{},
		Toolchain: toolchain.Spec{Kind: "debian", BaseImage: "base"},
	}
	return r, e, []Component{{Name: "core", Set: toolchain.CPU}, {Name: "hip", Set: toolchain.HIP}}, &stage.Result{Dir: src}
}

func isPreparation(job engine.Job, set toolchain.Set) bool {
	return strings.Contains(job.CommitAs, "toolchain-"+set.Name)
}

// The second toolchain is prepared while the first component is compiled: here the
// compile ends when it is ready.
func TestCompilePreparesTheNextToolchain(t *testing.T) {
	t.Parallel()
	prepared := make(chan struct{})
	r, e, list, src := twoComponents(t, func(ctx context.Context, job engine.Job) error {
		switch {
		case isPreparation(job, toolchain.HIP):
			close(prepared)
		case job.Name == "compile-core":
			select {
			case <-prepared:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	done, err := r.compileAll(t.Context(), list, src)
	if err != nil {
		t.Fatal(err)
	}
	if len(done) != 2 || done["core"] == nil || done["hip"] == nil {
		t.Errorf("compiled %v", done)
	}
	if last := e.names[len(e.names)-1]; last != "compile-hip " {
		t.Errorf("the last job is %q of %q", last, e.names)
	}
	// With cached results nothing runs, even if the engine has lost the images.
	before := slices.Clone(e.names)
	e.images = map[string]bool{"base": true}
	if _, err := r.compileAll(t.Context(), list, src); err != nil || !slices.Equal(e.names, before) {
		t.Errorf("with cached results: %v, jobs %q", err, e.names[len(before):])
	}
}

// If the preparation fails, the compile does not run on for half an hour.
func TestFailedPreparationEndsTheCompile(t *testing.T) {
	t.Parallel()
	failure := errors.New("the archive is unreachable")
	r, e, list, src := twoComponents(t, func(ctx context.Context, job engine.Job) error {
		switch {
		case isPreparation(job, toolchain.HIP):
			return failure
		case job.Name == "compile-core":
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	})
	if _, err := r.compileAll(t.Context(), list, src); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	if slices.Contains(e.names, "compile-hip ") {
		t.Errorf("jobs %q", e.names)
	}
}

// If the compile fails, the preparation ends, and the build does not before it.
func TestFailedCompileEndsThePreparation(t *testing.T) {
	t.Parallel()
	failure := errors.New("a compiler error")
	started, ended := make(chan struct{}), false
	r, _, list, src := twoComponents(t, func(ctx context.Context, job engine.Job) error {
		switch {
		case isPreparation(job, toolchain.HIP):
			close(started)
			<-ctx.Done()
			ended = true
			return ctx.Err()
		case job.Name == "compile-core":
			<-started
			return failure
		}
		return nil
	})
	if _, err := r.compileAll(t.Context(), list, src); !errors.Is(err, failure) || !ended {
		t.Errorf("got %v, the preparation has ended: %t", err, ended)
	}
}
