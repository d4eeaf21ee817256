package elfdep_test

import (
	"debug/elf"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/elfdep"
	"forge.lthn.ai/core/go-rocm/testing/elfgen"
)

// shape prints a closure as "SONAME=path<needed by".
func shape(libs []elfdep.Lib) []string {
	var out []string
	for _, l := range libs {
		where := l.InRoot
		if where == "" {
			where = "stage:" + filepath.Base(l.Path)
		}
		out = append(out, fmt.Sprintf("%s=%s<%s", l.SONAME, where, strings.Join(l.NeededBy, ",")))
	}
	return out
}

func TestClosureSearch(t *testing.T) {
	withRunpath := func(s elfgen.Spec, runpath string) elfgen.Spec { s.RunPath = runpath; return s }
	withRpath := func(s elfgen.Spec, rpath string) elfgen.Spec { s.RPath = rpath; return s }
	sys := func(name string) string { return systemDir + "/" + name }
	for _, c := range []struct {
		name  string
		files map[string]any
		opt   elfdep.Options
		want  []string
	}{
		{
			name: "breadth first, through links, each once",
			files: map[string]any{
				"bin/app":        elfgen.Library("", "libb.so.1", "liba.so.1"),
				sys("liba.so.1"): "liba.so.1.2.3", sys("liba.so.1.2.3"): elfgen.Library("liba.so.1", "libc.so.6"),
				sys("libb.so.1"): elfgen.Library("libb.so.1", "liba.so.1", "libc.so.6"),
				sys("libc.so.6"): elfgen.Library("libc.so.6", "libb.so.1"), // a circle
			},
			want: []string{
				"app=/bin/app<",
				"libb.so.1=/usr/lib/x86_64-linux-gnu/libb.so.1<app,libc.so.6",
				"liba.so.1=/usr/lib/x86_64-linux-gnu/liba.so.1.2.3<app,libb.so.1",
				"libc.so.6=/usr/lib/x86_64-linux-gnu/libc.so.6<liba.so.1,libb.so.1",
			},
		},
		{
			name: "absolute links mean the root, not this machine",
			files: map[string]any{
				"bin/app":               elfgen.Library("", "libz.so.1"),
				"lib":                   "usr/lib",
				sys("libz.so.1"):        "/etc/alternatives/libz",
				"etc/alternatives/libz": "/opt/../opt/z/libz.so.1.3",
				"opt/z/libz.so.1.3":     elfgen.Library("libz.so.1"),
			},
			want: []string{"app=/bin/app<", "libz.so.1=/opt/z/libz.so.1.3<app"},
		},
		{
			name: "RUNPATH with ORIGIN comes before the system, and is not inherited",
			files: map[string]any{
				"opt/x/bin/app":            withRunpath(elfgen.Library("", "liba.so.1"), "$ORIGIN/../lib:/nowhere"),
				"opt/x/lib/liba.so.1":      elfgen.Library("liba.so.1", "libb.so.1"),
				"opt/x/lib/libb.so.1":      elfgen.Library("libb.so.1"),
				sys("libb.so.1"):           elfgen.Library("libb.so.1"),
				sys("liba.so.1"):           elfgen.Library("liba.so.1"),
				"opt/x/lib/unrelated.so.1": elfgen.Library("unrelated.so.1"),
			},
			want: []string{
				"app=/opt/x/bin/app<",
				"liba.so.1=/opt/x/lib/liba.so.1<app",
				"libb.so.1=/usr/lib/x86_64-linux-gnu/libb.so.1<liba.so.1",
			},
		},
		{
			name: "RPATH is inherited, unless there is a RUNPATH",
			files: map[string]any{
				"opt/x/bin/app":       withRpath(elfgen.Library("", "liba.so.1", "libr.so.1"), "${ORIGIN}/../lib"),
				"opt/x/lib/liba.so.1": elfgen.Library("liba.so.1", "libb.so.1"),
				"opt/x/lib/libb.so.1": elfgen.Library("libb.so.1"),
				"opt/x/lib/libr.so.1": withRunpath(elfgen.Library("libr.so.1", "libs.so.1"), "/opt/run"),
				"opt/x/lib/libs.so.1": elfgen.Library("libs.so.1"),
				"opt/run/libs.so.1":   elfgen.Library("libs.so.1"),
			},
			want: []string{
				"app=/opt/x/bin/app<",
				"liba.so.1=/opt/x/lib/liba.so.1<app",
				"libr.so.1=/opt/x/lib/libr.so.1<app",
				"libb.so.1=/opt/x/lib/libb.so.1<liba.so.1",
				"libs.so.1=/opt/run/libs.so.1<libr.so.1",
			},
		},
		{
			name: "library path comes before RUNPATH, search paths in order",
			files: map[string]any{
				"bin/app":          withRunpath(elfgen.Library("", "liba.so.1", "libb.so.1"), "/run"),
				"first/liba.so.1":  elfgen.Library("liba.so.1"),
				"run/liba.so.1":    elfgen.Library("liba.so.1"),
				"second/libb.so.1": elfgen.Library("libb.so.1"),
				"third/libb.so.1":  elfgen.Library("libb.so.1"),
			},
			opt:  elfdep.Options{LibraryPaths: []string{"/first"}, SearchPaths: []string{"/second", "/third"}},
			want: []string{"app=/bin/app<", "liba.so.1=/first/liba.so.1<app", "libb.so.1=/second/libb.so.1<app"},
		},
		{
			name: "files for another machine are passed over",
			files: map[string]any{
				"bin/app":           elfgen.Library("", "liba.so.1"),
				"i386/liba.so.1":    elfgen.Spec{SONAME: "liba.so.1", Machine: elf.EM_386},
				sys("liba.so.1"):    elfgen.Library("liba.so.1"),
				"i386/ignored.so.1": []byte("no ELF at all, and nobody asks for it"),
			},
			opt:  elfdep.Options{SearchPaths: []string{"/i386", "/" + systemDir}},
			want: []string{"app=/bin/app<", "liba.so.1=/usr/lib/x86_64-linux-gnu/liba.so.1<app"},
		},
		{
			name: "a program's interpreter belongs to it, a library's does not",
			files: map[string]any{
				"bin/app":                        elfgen.Spec{Interp: "/lib64/ld-linux-x86-64.so.2", Needed: []string{"libc.so.6"}},
				"lib64":                          "usr/lib64",
				"usr/lib64/ld-linux-x86-64.so.2": "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
				sys("ld-linux-x86-64.so.2"):      elfgen.Library("ld-linux-x86-64.so.2"),
				sys("libc.so.6"):                 elfgen.Spec{SONAME: "libc.so.6", Interp: "/nowhere/ld.so", Needed: []string{"ld-linux-x86-64.so.2"}},
			},
			want: []string{
				"app=/bin/app<",
				"libc.so.6=/usr/lib/x86_64-linux-gnu/libc.so.6<app",
				"ld-linux-x86-64.so.2=/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2<app,libc.so.6",
			},
		},
		{
			name: "stopped names are neither looked for nor followed",
			files: map[string]any{
				"bin/app":        elfgen.Library("", "libamdhip64.so.6", "liba.so.1"),
				sys("liba.so.1"): elfgen.Library("liba.so.1", "libamdhip64.so.6"),
			},
			opt:  elfdep.Options{Stop: []string{"libamdhip64.so.6"}},
			want: []string{"app=/bin/app<", "liba.so.1=/usr/lib/x86_64-linux-gnu/liba.so.1<app"},
		},
		{
			name:  "a static program needs nothing",
			files: map[string]any{"bin/app": elfgen.Spec{Type: elf.ET_EXEC, Static: true}},
			want:  []string{"app=/bin/app<"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.opt.Root = elfgen.WriteTree(t, c.files)
			app := "/bin/app"
			if _, ok := c.files["opt/x/bin/app"]; ok {
				app = "/opt/x/bin/app"
			}
			libs, err := elfdep.Closure([]string{app}, c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, shape(libs)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestClosureStage(t *testing.T) {
	stage := elfgen.WriteTree(t, map[string]any{
		"llama-server": elfgen.Library("", "libllama.so.0", "libm.so.6"),
		"libllama.so.0": func() elfgen.Spec {
			s := elfgen.Library("libllama.so.0", "libggml.so.0", "libdep.so.1")
			s.RunPath = "$ORIGIN/sub:/opt/only-in-root"
			return s
		}(),
		"sub/libggml.so.0": elfgen.Library("libggml.so.0"),
		"libm.so.6":        elfgen.Library("libm.so.6"),
	})
	root := elfgen.WriteTree(t, map[string]any{
		systemDir + "/libm.so.6":         elfgen.Library("libm.so.6"),
		systemDir + "/libllama.so.0":     elfgen.Library("libllama.so.0"),
		"opt/only-in-root/libdep.so.1":   elfgen.Library("libdep.so.1"),
		"opt/only-in-root/never.so.1":    elfgen.Library("never.so.1"),
		systemDir + "/libunneeded.so.99": elfgen.Library("libunneeded.so.99"),
	})
	libs, err := elfdep.Closure([]string{filepath.Join(stage, "llama-server")}, elfdep.Options{Root: root, Stage: []string{stage}})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"llama-server=stage:llama-server<",
		"libllama.so.0=stage:libllama.so.0<llama-server",
		"libm.so.6=stage:libm.so.6<llama-server",
		"libggml.so.0=stage:libggml.so.0<libllama.so.0",
		"libdep.so.1=/opt/only-in-root/libdep.so.1<libllama.so.0",
	}
	if d := cmp.Diff(want, shape(libs)); d != "" {
		t.Error(d)
	}
	if libs[4].Path != filepath.Join(root, "opt/only-in-root/libdep.so.1") || libs[4].Size == 0 {
		t.Errorf("libdep: %+v", libs[4])
	}
	if d := cmp.Diff([]string{"$ORIGIN/sub", "/opt/only-in-root"}, libs[1].Runpath); d != "" {
		t.Error(d)
	}
}

func TestClosureMissing(t *testing.T) {
	root := elfgen.WriteTree(t, map[string]any{
		"bin/app":                   elfgen.Library("", "libgone.so.1", "liba.so.1"),
		systemDir + "/liba.so.1":    elfgen.Library("liba.so.1", "libgone.so.1", "libaway.so.2"),
		systemDir + "/libaway.so.2": "dangling",
	})
	_, err := elfdep.Closure([]string{"/bin/app"}, elfdep.Options{Root: root})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("got %v, want several errors", err)
	}
	var got []string
	for _, e := range joined.Unwrap() {
		var m *elfdep.MissingError
		if !errors.As(e, &m) {
			t.Fatalf("got %v, want a MissingError", e)
		}
		if !slices.Contains(m.Searched, "/"+systemDir) {
			t.Errorf("searched %v", m.Searched)
		}
		got = append(got, m.Name+"<"+m.NeededBy)
		if !strings.Contains(e.Error(), m.Name) || !strings.Contains(e.Error(), m.NeededBy) {
			t.Errorf("error %q does not name both", e)
		}
	}
	lib := "/" + systemDir + "/liba.so.1"
	if d := cmp.Diff([]string{"libgone.so.1</bin/app", "libgone.so.1<" + lib, "libaway.so.2<" + lib}, got); d != "" {
		t.Error(d)
	}
}

func TestClosureRefuses(t *testing.T) {
	root := elfgen.WriteTree(t, map[string]any{
		"bin/loop": "loop", "bin/text": []byte("#!/bin/sh\n"), "bin/app": elfgen.Library("", "libtext.so"),
		"lib/libtext.so": []byte("INPUT(-lc)\n"), "bin/arm": elfgen.Spec{Machine: elf.EM_AARCH64},
	})
	var fe *elfdep.FormatError
	for _, c := range []struct {
		roots []string
		want  string
		as    any
	}{
		{[]string{"/bin/loop"}, "symbolic links", nil},
		{[]string{"/bin/none"}, "no such file", nil},
		{[]string{"/bin/text"}, "bad ELF header", &fe},
		{[]string{"/bin/app"}, "libtext.so: bad ELF header", &fe},
	} {
		libs, err := elfdep.Closure(c.roots, elfdep.Options{Root: root})
		if err == nil || !strings.Contains(err.Error(), c.want) || (c.as != nil && !errors.As(err, c.as)) {
			t.Errorf("%v: %v, %v, want an error with %q", c.roots, shape(libs), err, c.want)
		}
	}
	mixed := elfgen.WriteTree(t, map[string]any{"a": elfgen.Library("a"), "b": elfgen.Spec{Machine: elf.EM_AARCH64}})
	if _, err := elfdep.Closure([]string{"/a", "/b"}, elfdep.Options{Root: mixed}); err == nil || !strings.Contains(err.Error(), "EM_AARCH64") {
		t.Errorf("roots for two machines: %v", err)
	}
}
