//go:build e2e

// Package hermetic proves that the shipped hip bundle needs nothing of the machine: the
// finished command unpacks it and answers in an empty root and on four releases of Debian,
// each time as an unprivileged user, on a read-only root, without a network.
package hermetic_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/docker/containertest"
	"forge.lthn.ai/core/go-rocm/docker/engine"
	"forge.lthn.ai/core/go-rocm/testing/cases"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
	"forge.lthn.ai/core/go-rocm/testing/models"
)

// user is the user id that runs the command in the container. No system has an account
// with this id.
const user = 4321

// suites returns the Debian releases that the bundle must run on: in CI the oldest and the newest.
func suites() []string {
	ends := []string{"bullseye", "forky"}
	return cases.Of(ends, ends, []string{"bullseye", "bookworm", "trixie", "forky"})
}

func product(t *testing.T, env string) string {
	t.Helper()
	path := os.Getenv(env)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s has to name what the release made: %v; `mage test` sets it", env, err)
	}
	return path
}

func TestBundleRunsOnEveryDistribution(t *testing.T) {
	packed, command := product(t, "GOROCM_HIP_BUNDLE"), product(t, "GOROCM_CLI")
	model, err := models.Tiny(t.TempDir(), "llama-spm", ggufgen.TinyOptions{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	eng := containertest.Engine(t)
	inputs := map[string]string{"go-rocm": command, "bundle.tar.zst": packed, "model.gguf": model}

	t.Run("empty root", func(t *testing.T) {
		var rootfs bytes.Buffer
		w := tar.NewWriter(&rootfs)
		err := errors.Join(w.WriteHeader(&tar.Header{Name: "w/", Typeflag: tar.TypeDir, Mode: 0o755, Uid: user, Gid: user}), w.Close())
		if err != nil {
			t.Fatal(err)
		}
		const ref = "go-rocm/test-root:empty"
		if _, err := eng.Import(t.Context(), ref, &rootfs); err != nil {
			t.Fatal(err)
		}
		answer(t, eng, ref, inputs)
	})
	for _, suite := range suites() {
		t.Run(suite, func(t *testing.T) {
			answer(t, eng, debian(t, eng, suite), inputs)
		})
	}
}

// directory makes the user's directory in an image of Debian.
const directory = `install -d -o 4321 -g 4321 "$1/w"`

// debian returns the image of a release, with a directory for the user.
func debian(t *testing.T, eng engine.Engine, suite string) string {
	t.Helper()
	return containertest.Debian(t, eng, suite, directory)
}

// answer runs one prompt in a container of the image.
func answer(t *testing.T, eng engine.Engine, ref string, inputs map[string]string) {
	t.Helper()
	log, err := runIn(t, eng, ref, inputs, append([]string{"/w/go-rocm"}, ask()...))
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	if !strings.Contains(log, "16 tokens") {
		t.Errorf("expected 16 tokens; the command said:\n%s", log)
	}
}

// ask returns the arguments for sixteen tokens.
func ask() []string {
	return []string{"run", "/w/model.gguf", "-p", "Hello", "--raw", "--temperature", "0", "-n", "16", "-c", "256", "--stats"}
}

// runIn runs a command in a container of the image and returns its output.
func runIn(t *testing.T, eng engine.Engine, ref string, inputs map[string]string, argv []string) (string, error) {
	t.Helper()
	var log bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	err := eng.Run(ctx, engine.Job{
		Name: "answer in " + ref, Image: ref, Cmd: argv,
		Env: []string{"GOROCM_BUNDLE=/w/bundle.tar.zst", "GOROCM_CACHE=/w/cache"},
		Dir: "/w", UID: user, GID: user, Volumes: []string{"/w"}, Log: &log,
		In: []engine.Input{{Dir: "/w", Write: func(w *tar.Writer) error {
			for name, path := range inputs {
				if err := add(w, name, path); err != nil {
					return err
				}
			}
			return nil
		}}},
	})
	return log.String(), err
}

func add(w *tar.Writer, name, path string) error {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: info.Size(), Uid: user, Gid: user}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
