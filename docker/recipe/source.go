package recipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"forge.lthn.ai/core/go-rocm/docker/stage"
)

// TreeMismatchError reports that a source is not the locked one.
type TreeMismatchError struct {
	From      string
	Want, Got string
}

// Error names both hashes and what to do.
func (e *TreeMismatchError) Error() string {
	return fmt.Sprintf("source from %s has git tree %s, the lock has %s: use the source of that release, or change the lock", e.From, e.Got, e.Want)
}

// Source returns the verified source tree as a stage result. A path that the user names is verified
// every time, even if the cache has the tree.
func Source(ctx context.Context, cache *stage.Cache, lock Lock, userPath string, log io.Writer) (*stage.Result, error) {
	inputs := map[string]string{"tree": lock.Tree}
	if userPath != "" {
		tmp, err := os.MkdirTemp("", "go-rocm-source-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(tmp)
		dir := filepath.Join(tmp, "tree")
		if err := checkout(ctx, fromPath(userPath), lock, dir, tmp); err != nil {
			return nil, err
		}
		return cache.Do(ctx, "source", inputs, func(_ context.Context, out string) error {
			if err := os.Remove(out); err != nil {
				return err
			}
			return os.CopyFS(out, os.DirFS(dir))
		})
	}
	return cache.Do(ctx, "source", inputs, func(ctx context.Context, out string) error {
		var errs []error
		for _, p := range []provider{fromGit(lock), fromNPM(lock)} {
			if _, err := fmt.Fprintf(log, "source: llama.cpp %s from %s\n", lock.Tag, p.name); err != nil {
				return err
			}
			tmp, err := os.MkdirTemp("", "go-rocm-source-")
			if err != nil {
				return err
			}
			err = checkout(ctx, p, lock, out, tmp)
			if err = errors.Join(err, os.RemoveAll(tmp)); err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			errs = append(errs, err)
			if _, err := fmt.Fprintf(log, "source: %v\n", err); err != nil {
				return err
			}
			if err := errors.Join(os.RemoveAll(out), os.Mkdir(out, 0o755)); err != nil {
				return err
			}
		}
		return fmt.Errorf("the source could not be fetched (set GOROCM_SOURCE to a git repository, git bundle or tarball): %w", errors.Join(errs...))
	})
}

// cachedSource returns the source of the earlier compiles.
func (r *Recipe) cachedSource() (*stage.Result, error) {
	src, ok, err := r.Cache.Lookup("source", map[string]string{"tree": r.Lock.Tree})
	if err != nil || !ok {
		return nil, fmt.Errorf("the source stage was removed: %w", errors.Join(err, os.ErrNotExist))
	}
	return src, nil
}

// checkout copies the source from p to dir and verifies it: the hash is computed from the files
// themselves.
func checkout(ctx context.Context, p provider, lock Lock, dir, tmp string) error {
	if err := p.get(ctx, lock, dir, tmp); err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	got, err := treeHash(ctx, dir, tmp)
	if err != nil {
		return fmt.Errorf("%s: %w", p.name, err)
	}
	if got != lock.Tree {
		return &TreeMismatchError{From: p.name, Want: lock.Tree, Got: got}
	}
	return nil
}

// treeHash computes the git tree hash of a directory's files.
func treeHash(ctx context.Context, dir, tmp string) (string, error) {
	repo := filepath.Join(tmp, "hash.git")
	if _, err := git(ctx, "init", "--quiet", "--bare", repo); err != nil {
		return "", err
	}
	if _, err := git(ctx, "--git-dir="+repo, "--work-tree="+dir, "-c", "core.fileMode=true", "add", "--all", "--force"); err != nil {
		return "", err
	}
	return git(ctx, "--git-dir="+repo, "write-tree")
}

// git runs git without the user's or the system's configuration and returns
// its trimmed output.
func git(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "core.autocrlf=false", "-c", "advice.detachedHead=false"}, args...)...)
	cmd.Env = append(gitEnvironment(), "GIT_TERMINAL_PROMPT=0", "LC_ALL=C.UTF-8")
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return "", errors.New("git is not installed: run `apt-get install git`")
		}
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSpace(stdout.String()), nil
}

// repositoryVariables are the variables in which git passes its hooks the
// repository that they are called for, as git-rev-parse(1) lists them with
// --local-env-vars.
var repositoryVariables = []string{
	"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CONFIG", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_COUNT", "GIT_OBJECT_DIRECTORY",
	"GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NO_REPLACE_OBJECTS",
	"GIT_REPLACE_REF_BASE", "GIT_PREFIX", "GIT_INTERNAL_SUPER_PREFIX", "GIT_SHALLOW_FILE", "GIT_COMMON_DIR",
}

// gitEnvironment returns this process's environment without variables about another repository or
// a user's configuration.
func gitEnvironment() []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(repositoryVariables, name)
	})
	return append(env, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null")
}
