package recipe

import (
	"bytes"
	"context"
	_ "embed" // the compile script is part of the program
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/docker/toolchain"
)

//go:embed compile.sh
var compileScript string

// exitUnusedOption is the script's status when CMake did not use an option.
const exitUnusedOption = 64

// UnknownOptionError reports CMake options that the project does not declare.
type UnknownOptionError struct {
	Component string
	Options   []string
}

// Error names the options.
func (e *UnknownOptionError) Error() string {
	return fmt.Sprintf("compile %s: llama.cpp has no CMake option %s: check the spelling in GOROCM_CMAKE, or write COMPONENT:NAME=VALUE for an option of one component",
		e.Component, strings.Join(e.Options, ", "))
}

// compileInputs key a compile.
type compileInputs struct {
	Component string
	Tree      string
	Image     string `json:",omitempty"` // for images that are not made from the archive
	Packages  []toolchain.Package
	Options   []string
	Env       []string
	Script    string
}

// compile compiles one component, as a stage of the cache.
func (r *Recipe) compile(ctx context.Context, c Component, src *stage.Result, t *toolchain.Toolchain) (*stage.Result, error) {
	in, err := r.compileInputs(c, src, t)
	if err != nil {
		return nil, err
	}
	name := compileStage(c)
	return r.Cache.Do(ctx, name, in, func(ctx context.Context, dir string) error {
		if err := toolchain.Ensure(ctx, r.Engine, r.toolchainSpec(c.Set), t, r.Log); err != nil {
			return err
		}
		log, err := r.Progress.Open(name)
		if err != nil {
			return err
		}
		defer log.Close()
		var configure bytes.Buffer
		err = r.Engine.Run(ctx, engine.Job{
			Name: name, Image: t.ID,
			Cmd: append([]string{"/bin/sh", "-eu", "-c", compileScript, "compile"}, in.Options...),
			Env: append(in.Env, "JOBS="+strconv.Itoa(r.Jobs)),
			Dir: "/build", UID: toolchain.User, GID: toolchain.User,
			Volumes: []string{"/src", "/build"},
			In:      []engine.Input{{Dir: "/src", Write: engine.TarDirectory(src.Dir, toolchain.User, r.Lock.Time())}},
			Out:     []engine.Output{{Path: "/build/out", Read: engine.ExtractFiles(dir)}},
			Log:     io.MultiWriter(log, &limitedWriter{w: &configure, left: 1 << 20}),
			CPUs:    0, Memory: r.Memory,
		})
		var exit *engine.ExitError
		if errors.As(err, &exit) && exit.Code == exitUnusedOption {
			return &UnknownOptionError{Component: c.Name, Options: UnusedOptions(configure.String())}
		}
		return err
	})
}

// compileStage returns the name of the stage that compiles a component.
func compileStage(c Component) string { return "compile-" + c.Name }

// compileInputs returns what keys a component's compile.
func (r *Recipe) compileInputs(c Component, src *stage.Result, t *toolchain.Toolchain) (compileInputs, error) {
	known, err := declaredOptions(src.Dir)
	if err != nil {
		return compileInputs{}, err
	}
	in := compileInputs{
		Component: c.Name, Tree: r.Lock.Tree, Packages: t.Packages,
		Options: c.arguments(r.CMake, known), Script: compileScript,
		Env: r.environment(c),
	}
	if r.toolchainSpec(c.Set).HasBaseImage() {
		in.Image = t.ID
	}
	return in, nil
}

// environment returns the whole environment of a compile. It is fixed, since the
// results must not depend on the machine.
func (r *Recipe) environment(c Component) []string {
	rocm := ""
	if c.Set.ROCm {
		rocm = r.toolchainSpec(c.Set).ROCm()
	}
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/build", "LC_ALL=C.UTF-8", "TZ=UTC", "NINJA_STATUS=[%f/%t] ",
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(r.Lock.Epoch, 10),
		"ROCM=" + rocm,
		"BUILD=" + strings.Join(c.Build, " "),
		"PROGRAMS=" + strings.Join(c.Programs, " "),
		"LIBRARIES=" + strings.Join(c.Libraries, " "),
		"MODULES=" + strings.Join(c.Modules, " "),
	}
	if rocm != "" && rocm != "/usr" {
		env[0] = "PATH=" + rocm + "/bin:" + strings.TrimPrefix(env[0], "PATH=")
		env = append(env, "ROCM_PATH="+rocm)
	}
	return env
}

// UnusedOptions reads the names under CMake's warning about variables that a
// project did not use.
func UnusedOptions(log string) []string {
	_, rest, ok := strings.Cut(log, "Manually-specified variables were not used by the project:")
	if !ok {
		return nil
	}
	var names []string
	for line := range strings.Lines(rest) {
		switch name := strings.TrimSpace(line); {
		case name == "" && len(names) == 0: // the blank line before the list
		case name == "" || !strings.HasPrefix(line, " "):
			return names
		default:
			names = append(names, name)
		}
	}
	return names
}

// declaredOptions reports which options the source's top CMake files declare.
func declaredOptions(src string) (func(string) bool, error) {
	var all []byte
	for _, name := range []string{"CMakeLists.txt", "ggml/CMakeLists.txt"} {
		b, err := os.ReadFile(filepath.Join(src, name))
		if err != nil {
			return nil, fmt.Errorf("read the source's options: %w", err)
		}
		all = append(all, b...)
	}
	return func(option string) bool {
		return bytes.Contains(all, []byte("option("+option+" ")) || bytes.Contains(all, []byte("set("+option+" "))
	}, nil
}

// limitedWriter forwards the first bytes that are written to it.
type limitedWriter struct {
	w    io.Writer
	left int
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.w.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}
