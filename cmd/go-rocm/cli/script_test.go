//go:build linux && amd64

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"forge.lthn.ai/core/go-rocm/internal/webui"
	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/pkg/release"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen/fitcheck"
	"forge.lthn.ai/core/go-rocm/testing/imagegen"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// TestScript runs the specifications of the commands in testdata/script. Each
// runs in an empty directory with a home of its own, a bundle whose llama-server
// is fakellama (with the script in llama.json, if there is one), and a small model
// at $MODEL. Besides the commands of testscript there are those of scriptCommands.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", Setup: setupScript, Cmds: scriptCommands(), RequireExplicitExec: true, RequireUniqueNames: true,
		Condition: func(name string) (bool, error) {
			switch name {
			case "root":
				return os.Geteuid() == 0, nil
			case "page": // a release puts the web page into the checkout
				_, err := webui.Embedded()
				return err == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
	})
}

func setupScript(e *testscript.Env) error {
	at := func(name string) string { return filepath.Join(e.WorkDir, name) }
	for _, dir := range []string{"home", "run", "bundle", "weights"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			return err
		}
	}
	if err := writeServer(at("bundle")); err != nil {
		return err
	}
	var script fakellama.Script
	raw, err := os.ReadFile(at("llama.json"))
	if err == nil {
		err = json.Unmarshal(raw, &script)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	env, err := script.Env()
	if err != nil {
		return err
	}
	testdata, err := filepath.Abs("../../../pkg/release/testdata")
	if err != nil {
		return err
	}
	passwd := fmt.Sprintf("me:x:%d:%d::%s:/bin/sh\n", os.Geteuid(), os.Getegid(), at("home"))
	if err := os.WriteFile(at("home/passwd"), []byte(passwd), 0o600); err != nil {
		return err
	}
	e.Vars = append(e.Vars, env, envPasswd+"="+at("home/passwd"), exitAtOnce, supervise.EnvInherit+"="+fakellama.EnvScript, "HOME="+at("home"), "XDG_RUNTIME_DIR="+at("run"), "XDG_CACHE_HOME="+at("home/.cache"),
		"GOROCM_BUNDLE="+at("bundle"), "MODEL="+at("weights/smollm2-135m-Q8_0.gguf"), "ESC=\x1b", "BEL=\a", "CSI=\u009b", "BOM=\ufeff", "KEYS="+testdata)
	return writeModel(at("weights/smollm2-135m-Q8_0.gguf"), "smollm2-135m-Q8_0")
}

func writeModel(path, id string) error {
	for _, k := range ggufgen.Catalogue() {
		if k.ID() == id {
			written, err := fitcheck.Write(filepath.Dir(path), k)
			if err != nil {
				return err
			}
			return os.Rename(written, path)
		}
	}
	return fmt.Errorf("no model %s in ggufgen.Catalogue", id)
}

type scriptCommand = func(ts *testscript.TestScript, neg bool, args []string)

func scriptCommands() map[string]scriptCommand {
	commands := map[string]scriptCommand{
		"misconfigured": scriptMisconfigured, "status": scriptStatus, "json": scriptJSON, "request": scriptRequest,
		// model FILE ID writes a model of ggufgen's catalogue, without its weights.
		"model": files(2, func(_ *testscript.TestScript, path string, args []string) error { return writeModel(path, args[0]) }),
		// gguf FILE ARCHITECTURE [KEY=TEXT...] writes a GGUF file with one tensor.
		"gguf": files(2, func(_ *testscript.TestScript, path string, args []string) error {
			return writeGGUF(path, args[0], args[1:])
		}),
		// vocabulary FILE writes a GGUF file without tensors.
		"vocabulary": files(1, func(_ *testscript.TestScript, path string, _ []string) error {
			return ggufgen.New("llama").WriteFile(path)
		}),
		// projector FILE [WIDTH] writes a tiny multimodal projector for models of a width.
		"projector": files(1, func(_ *testscript.TestScript, path string, args []string) error {
			var o ggufgen.ProjectorOptions
			if len(args) > 0 {
				width, err := strconv.Atoi(args[0])
				if err != nil {
					return err
				}
				o.Output = width
			}
			b, err := ggufgen.Projector(o)
			if err != nil {
				return err
			}
			return b.WriteFile(path)
		}),
		// image FILE SEED writes a PNG.
		"image": files(2, func(_ *testscript.TestScript, path string, args []string) error {
			seed, err := strconv.ParseUint(args[0], 10, 63)
			if err != nil {
				return err
			}
			return os.WriteFile(path, imagegen.PNG(16, seed), 0o600)
		}),
		// pack FILE VERSION packs a bundle for gfx1100 and gfx1101.
		"pack": files(2, func(_ *testscript.TestScript, path string, args []string) error { return packBundle(path, args[0]) }),
		// unpack DIR PACK TARGETS unpacks for some of the targets, or all.
		"unpack": files(3, func(ts *testscript.TestScript, dir string, args []string) error {
			var targets []gfx.Target
			switch args[1] {
			case "all":
			case "none":
				targets = []gfx.Target{}
			default:
				targets = []gfx.Target{gfx.Target(args[1])}
			}
			return unpackBundle(dir, ts.MkAbs(args[0]), targets)
		}),
		// fifo FILE makes a named pipe, which nobody writes to.
		"fifo": files(1, func(_ *testscript.TestScript, path string, _ []string) error { return syscall.Mkfifo(path, 0o600) }),
		// damage FILE flips a bit in the middle of the file.
		"damage": files(1, func(_ *testscript.TestScript, path string, _ []string) error {
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			raw[len(raw)/2] ^= 0x40
			return os.WriteFile(path, raw, 0o600)
		}),
		// chown UID FILE changes the owner of a file.
		"chown": func(ts *testscript.TestScript, _ bool, args []string) {
			uid, err := strconv.Atoi(args[0])
			ts.Check(err)
			ts.Check(os.Chown(ts.MkAbs(args[1]), uid, uid))
		},
		// overwrite FILE OFFSET overwrites a byte.
		"overwrite": files(2, func(_ *testscript.TestScript, path string, args []string) error {
			offset, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil {
				return err
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt([]byte{1}, offset)
			return errors.Join(err, f.Close())
		}),
		// sums DIR writes SHA256SUMS for a release's directory.
		"sums": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(release.WriteChecksums(context.Background(), ts.MkAbs(args[0])))
		},
	}
	maps.Copy(commands, storeScriptCommands())
	return commands
}

// files adapts a command whose first of at least n arguments is a file.
func files(n int, run func(ts *testscript.TestScript, path string, args []string) error) scriptCommand {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) < n {
			ts.Fatalf("want %d arguments, got %q", n, args)
		}
		ts.Check(run(ts, ts.MkAbs(args[0]), args[1:]))
	}
}

// scriptStatus is "status N PROGRAM [ARG...]": exec, which must exit with N.
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	status := 0
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

// scriptJSON is "json PATH REGEXP": stdout is JSON, in which the value at PATH
// (names and indices joined with dots, "len" for the length) matches REGEXP.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] json PATH REGEXP")
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &v); err != nil {
		ts.Fatalf("stdout: %v", err)
	}
	for name := range strings.SplitSeq(args[0], ".") {
		switch in := v.(type) {
		case map[string]any:
			v = in[name]
		case []any:
			if name == "len" {
				v = float64(len(in))
				continue
			}
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(in) {
				ts.Fatalf("no element %q among %d", name, len(in))
			}
			v = in[i]
		default:
			v = nil
		}
	}
	text, ok := v.(string)
	if !ok {
		raw, err := json.Marshal(v)
		ts.Check(err)
		text = string(raw)
	}
	if regexp.MustCompile("^(?:"+args[1]+")$").MatchString(text) == neg {
		ts.Fatalf("%s is %s, want %t for %s", args[0], text, !neg, args[1])
	}
}

// scriptRequest is "request STATUS METHOD SOCKET PATH [BODY]": sends an HTTP
// request once the server at the unix socket is ready, and writes the body of the
// answer to stdout.
func scriptRequest(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: request STATUS METHOD SOCKET PATH [BODY]")
	}
	socket := ts.MkAbs(args[2])
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	send := func() (int, []byte, error) {
		req, err := http.NewRequestWithContext(context.Background(), args[1], "http://localhost"+args[3], strings.NewReader(strings.Join(args[4:], " ")))
		if err != nil {
			return 0, nil, err
		}
		res, err := client.Do(req)
		if err != nil {
			return 0, nil, err
		}
		defer func() { _ = res.Body.Close() }()
		raw, err := io.ReadAll(res.Body)
		return res.StatusCode, raw, err
	}
	var status int
	var raw []byte
	var err error
	poll.Holds(func() bool { // the server may be starting
		status, raw, err = send()
		return err == nil && status != http.StatusServiceUnavailable
	})
	ts.Check(err)
	_, err = ts.Stdout().Write(raw)
	ts.Check(err)
	if strconv.Itoa(status) != args[0] {
		ts.Fatalf("status %d, want %s: %s", status, args[0], raw)
	}
}

func writeGGUF(path, architecture string, metadata []string) error {
	b := ggufgen.New(architecture)
	for _, kv := range metadata {
		key, text, _ := strings.Cut(kv, "=")
		b.Text(key, text)
	}
	tensor := "a"
	if slices.Contains(metadata, "general.type=adapter") {
		tensor = "blk.0.attn_q.weight.lora_a"
	}
	b.Tensor(tensor, 0, nil, 8, 4)
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = b.WriteSparse(f)
	return errors.Join(err, f.Close())
}

// packBundle packs a bundle for two GPU targets into the file at path.
func packBundle(path, version string) error {
	dir, err := os.MkdirTemp(filepath.Dir(path), "bundle")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for name, text := range map[string]string{
		"llama-server": "#!/bin/sh\n", "libfat.so": strings.Repeat("head", 2000) + strings.Repeat("a", 40_000) + strings.Repeat("b", 40_000),
		"k_gfx1100.co": "a", "k_gfx1101.co": "b",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if err := os.Chmod(filepath.Join(dir, "llama-server"), 0o755); err != nil {
		return err
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Name: "llama-test", Variant: "hip", Flavour: bundle.FlavourSystem, Version: version, Targets: []gfx.Target{"gfx1100", "gfx1101"},
		Entry: bundle.Entry{Program: "llama-server"},
		Files: []bundle.File{
			{Path: "libfat.so", Parts: []bundle.Part{{Target: "gfx1100", Extents: bundle.Extents{{Offset: 8000, Size: 40_000}}}, {Target: "gfx1101", Extents: bundle.Extents{{Offset: 48_000, Size: 40_000}}}}},
			{Path: "k_gfx1100.co", Target: "gfx1100"},
			{Path: "k_gfx1101.co", Target: "gfx1101"},
		},
	})
	if err != nil {
		return err
	}
	var packed bytes.Buffer
	if _, err := bundle.Pack(context.Background(), &packed, dir, m, bundle.PackOptions{Encoder: bundle.GoEncoder(zstd.SpeedFastest, 1<<20)}); err != nil {
		return err
	}
	return os.WriteFile(path, packed.Bytes(), 0o600)
}

// unpackBundle unpacks a bundle into the new directory dir as an installation for
// the targets does; nil means all.
func unpackBundle(dir, pack string, targets []gfx.Target) error {
	p, err := bundle.OpenFile(pack)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	err = p.Extract(context.Background(), root, bundle.ExtractOptions{Select: bundle.ForTargets(targets), Projection: p.Manifest().ProjectionFor(targets)})
	if err != nil {
		return err
	}
	return p.WriteManifest(root, false)
}
