package disk

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/bundle"
	"forge.lthn.ai/core/go-rocm/pkg/gfx"
)

// TestMain also runs the child processes that measure once.
func TestMain(m *testing.M) {
	for name, run := range map[string]func(context.Context, io.Writer, []string) error{Inner: Once, InnerDownload: DownloadOnce} {
		if len(os.Args) < 2 || os.Args[1] != name {
			continue
		}
		if err := run(context.Background(), os.Stdout, os.Args[2:]); err != nil {
			_, _ = io.WriteString(os.Stderr, err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// smallPack packs a bundle with files of two targets, a hole and two equal files.
func smallPack(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	random := func(n int) []byte {
		b := make([]byte, n)
		for i, r := 0, rand.New(rand.NewPCG(1, uint64(n))); i < n; i++ {
			b[i] = byte(r.IntN(40))
		}
		return b
	}
	files := map[string][]byte{
		"llama-server": []byte("#!/bin/true\n"), "ld.so": []byte("#!/bin/true\n# loader\n"), "liba.so": random(300_000), "liba.so.1": random(300_000),
		"libholes.so":                  append(make([]byte, 2<<20), random(50_000)...),
		"rocblas/library/x_gfx1100.co": random(90_000), "rocblas/library/x_gfx1101.co": random(80_000),
	}
	for name, b := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m, err := bundle.Build(dir, bundle.Manifest{
		Schema: bundle.Schema, Name: "llama-hip", Variant: "hip", Flavour: bundle.FlavourHermetic, Version: "v1.0.0",
		Targets: []gfx.Target{"gfx1100", "gfx1101"}, Entry: bundle.Entry{Loader: "ld.so", Program: "llama-server"},
	})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "small.tar.zst"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = bundle.Pack(t.Context(), f, dir, m, bundle.PackOptions{})
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func input(t *testing.T, pack string) Input {
	return Input{Pack: pack, Target: "gfx1100", Work: t.TempDir(), Rounds: 2, Threads: 2, Log: io.Discard}
}

// TestExtractionRunsBothSides measures a small pack: the archive of the peer is compared
// with the manifest, and each extraction runs in a process of its own.
func TestExtractionRunsBothSides(t *testing.T) {
	in := input(t, smallPack(t))
	s, err := Extraction(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 3 || len(s.Goals) != 2 || s.Goals[1].Got < 0 || s.Goals[0].Got <= 0 {
		t.Errorf("%+v", s)
	}
	left, err := filepath.Glob(filepath.Join(in.Work, "bundle-*"))
	if err != nil || len(left) != 0 {
		t.Errorf("remains: %v, %v", left, err)
	}
}

// TestDownloadRunsBothSides measures a small file: every side has the right digest, and
// each download runs in a process of its own.
func TestDownloadRunsBothSides(t *testing.T) {
	in := input(t, "")
	s, err := Download(t.Context(), in, 3<<20+1)
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Rows) != 4 || len(s.Goals) != 2 || s.Goals[0].Got <= 0 || s.Goals[1].Got < 0 {
		t.Errorf("%+v", s)
	}
	if left, err := os.ReadDir(in.Work); err != nil || len(left) != 0 {
		t.Errorf("remains: %v, %v", left, err)
	}
	other := strings.Repeat("00", 32)
	for _, args := range [][]string{nil, {"http://127.0.0.1:1/m", other, t.TempDir()}} {
		if err := DownloadOnce(t.Context(), io.Discard, args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

func TestPackingHasARowForEachJob(t *testing.T) {
	in := input(t, smallPack(t))
	s, err := Packing(t.Context(), Job{in, 3}, Job{in, 1})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, row := range s.Rows {
		names = append(names, row[0])
		if len(row) != len(s.Head) {
			t.Errorf("row %q", row)
		}
	}
	if got, want := strings.Join(names, "|"), "pack llama-hip, level 3|unpack llama-hip, all of it|pack llama-hip, level 1"; got != want {
		t.Errorf("rows %s, want %s", got, want)
	}
}

func TestOnceReportsTimeAndMemory(t *testing.T) {
	pack := smallPack(t)
	var out bytes.Buffer
	if err := Once(t.Context(), &out, []string{pack, t.TempDir(), "gfx1101"}); err != nil {
		t.Fatal(err)
	}
	var o once
	if err := json.Unmarshal(out.Bytes(), &o); err != nil || o.Seconds <= 0 || o.Start <= 0 || o.End < o.Start {
		t.Errorf("%+v, %v", o, err)
	}
	for _, args := range [][]string{nil, {pack, t.TempDir(), "no target"}, {pack + ".none", t.TempDir(), "gfx1100"}, {pack, t.TempDir(), "gfx1200"}} {
		if err := Once(t.Context(), io.Discard, args); err == nil {
			t.Errorf("%q is accepted", args)
		}
	}
}

// A failed peer is an error and not a figure.
func TestFailedPeerIsAnError(t *testing.T) {
	if err := shell(t.Context(), `false | true`); err == nil {
		t.Error("a failed pipe is no error")
	}
	bad := filepath.Join(t.TempDir(), "bad.tar.zst")
	for _, content := range []string{"", "short", strings.Repeat("x", 100), strings.Repeat("x", 84) + "\xff\xff\xff\xff\xff\xff\xff\x7f" + magic} {
		if err := os.WriteFile(bad, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(bad)
		if err != nil {
			t.Fatal(err)
		}
		if err := copyFrames(io.Discard, f, "core"); !errors.Is(err, ErrIndex) {
			t.Errorf("%q: %v", content, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Extraction(t.Context(), input(t, bad)); err == nil {
		t.Error("a malformed pack is measured")
	}
}
