// Package stage caches the results of build steps under the digest of their inputs, so that
// a step whose inputs have not changed does not run again.
//
// A result is a directory that is complete or absent, also after a power cut: it is filled
// under another name, synced and renamed. If two processes need the same result, one waits
// for the other. The next process removes the unfinished result of a killed one.
//
// The package caches whole steps and never single objects: HIP objects that were compiled
// through an object cache differ from those that were not.
package stage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

const (
	// recordName is the file that makes a directory a finished result. Its time is
	// that of the result's last use.
	recordName = "stage.json"
	// keyDigits is the length of the part of a key that is in the name of a directory.
	keyDigits = 24
	// unfinished ends the name of a directory that is being filled.
	unfinished = ".part"
)

// Cache is a directory of results.
type Cache struct {
	// Waiting, if set, is called once by Do before it waits for another process that
	// makes the result of the stage name.
	Waiting func(name string)
	dir     string
}

// Open opens the cache directory, and creates it if necessary.
func Open(dir string) (*Cache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the stage cache: %w", err)
	}
	return &Cache{dir: dir}, nil
}

// Result is a finished step.
type Result struct {
	Name   string `json:"name"`
	Key    string `json:"key"`    // digest of the inputs
	Output string `json:"output"` // digest of the files: names, modes, content
	Inputs any    `json:"inputs"` // the inputs themselves, for people
	Dir    string `json:"-"`      // the directory with the files
	Cached bool   `json:"-"`      // nothing had to be done
}

// Key returns the digest of a step's inputs: the hex SHA-256 of their JSON form.
func Key(inputs any) (string, error) {
	b, err := json.Marshal(inputs)
	if err != nil {
		return "", fmt.Errorf("encode stage inputs: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Lookup returns a finished result, and does not build it.
func (c *Cache) Lookup(name string, inputs any) (*Result, bool, error) {
	key, err := Key(inputs)
	if err != nil {
		return nil, false, err
	}
	r, err := load(c.path(name, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	return r, err == nil, err
}

// Do returns the result of the step name for inputs. If the cache does not have it, fill
// fills an empty directory with it.
func (c *Cache) Do(ctx context.Context, name string, inputs any, fill func(ctx context.Context, dir string) error) (*Result, error) {
	key, err := Key(inputs)
	if err != nil {
		return nil, err
	}
	final := c.path(name, key)
	if r, err := load(final); !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	lock := flock.New(final + ".lock")
	ok, err := lock.TryLock()
	if err == nil && !ok {
		if c.Waiting != nil {
			c.Waiting(name)
		}
		ok, err = lock.TryLockContext(ctx, 200*time.Millisecond)
	}
	if err != nil || !ok {
		return nil, fmt.Errorf("stage %s: wait for another build of it: %w", name, err)
	}
	defer lock.Unlock() //nolint:errcheck // the lock is released with the process
	if r, err := load(final); !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}

	work := final + unfinished
	if err := os.RemoveAll(work); err != nil {
		return nil, fmt.Errorf("stage %s: remove an unfinished result: %w", name, err)
	}
	if err := os.Mkdir(work, 0o700); err != nil {
		return nil, fmt.Errorf("stage %s: %w", name, err)
	}
	out := filepath.Join(work, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		return nil, fmt.Errorf("stage %s: %w", name, err)
	}
	if err := fill(ctx, out); err != nil {
		return nil, errors.Join(fmt.Errorf("stage %s: %w", name, err), os.RemoveAll(work))
	}
	r := &Result{Name: name, Key: key, Inputs: inputs}
	if r.Output, err = Digest(out); err != nil {
		return nil, fmt.Errorf("stage %s: %w", name, err)
	}
	if err := writeRecord(work, r); err != nil {
		return nil, fmt.Errorf("stage %s: %w", name, err)
	}
	if err := Finalize(work, final); err != nil {
		return nil, fmt.Errorf("stage %s: %w", name, err)
	}
	r.Dir = filepath.Join(final, "out")
	return r, nil
}

func (c *Cache) path(name, key string) string {
	return filepath.Join(c.dir, name+"-"+key[:keyDigits])
}

func load(dir string) (*Result, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordName))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	_ = os.Chtimes(filepath.Join(dir, recordName), now, now) // a cache that cannot be written to is not pruned either
	r := &Result{Dir: filepath.Join(dir, "out"), Cached: true}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("read %s: %w; remove the directory %s to build the stage again", recordName, err, dir)
	}
	return r, nil
}

func writeRecord(dir string, r *Result) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, recordName), append(b, '\n'), 0o644)
}

// Finalize renames a finished directory within its parent directory after its content is on
// disk. After a power cut, the final name has the whole content or does not exist.
func Finalize(work, final string) error {
	if err := syncTree(work, (*os.File).Sync); err != nil {
		return err
	}
	if err := os.Rename(work, final); err != nil {
		return err
	}
	return syncOne(filepath.Dir(final), (*os.File).Sync)
}

// syncTree calls sync for the files and directories below dir, and for each directory after
// its content.
func syncTree(dir string, sync func(*os.File) error) error {
	var directories []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir():
			directories = append(directories, name)
		case e.Type().IsRegular():
			return syncOne(name, sync)
		}
		return nil
	})
	for _, name := range slices.Backward(directories) {
		if err == nil {
			err = syncOne(name, sync)
		}
	}
	return err
}

func syncOne(name string, sync func(*os.File) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(sync(f), f.Close())
}

// Digest returns the hex SHA-256 of the sorted list of a directory's files with mode, content
// digest and name. It does not depend on times, owners or the modes of directories.
func Digest(dir string) (string, error) {
	sum := sha256.New()
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		var content string
		mode := info.Mode().Perm()
		switch {
		case e.IsDir():
			content, mode = "dir", 0 // its mode depends on the umask
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			content = "link " + target
		default:
			if content, err = FileDigest(p); err != nil {
				return err
			}
		}
		_, err = fmt.Fprintf(sum, "%o %s %s\n", mode, content, strings.ReplaceAll(rel, "\n", "\\n"))
		return err
	})
	if err != nil {
		return "", fmt.Errorf("digest of %s: %w", dir, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// FileDigest returns the hex SHA-256 of a file's content.
func FileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
