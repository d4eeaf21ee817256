package elfdep

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// maxLinks bounds the symbolic links followed for one path, as Linux does.
const maxLinks = 40

// rootFS resolves paths inside a directory that is used as "/". Unlike os.Root, it follows
// absolute symbolic links, relative to the directory, as in an unpacked image. ".." does not
// leave the directory.
type rootFS string

// resolve follows every symbolic link of name and returns the final path
// inside the root ("/usr/lib/x") and on this machine.
func (r rootFS) resolve(name string) (inside, host string, err error) {
	pending := strings.Split(path.Clean("/"+name), "/")[1:]
	done := "/"
	links := 0
	for len(pending) > 0 {
		part := pending[0]
		pending = pending[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		fi, err := os.Lstat(r.host(next))
		if err != nil {
			return "", "", err
		}
		if fi.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", "", fmt.Errorf("%s: more than %d symbolic links", name, maxLinks)
		}
		target, err := os.Readlink(r.host(next))
		if err != nil {
			return "", "", err
		}
		if path.IsAbs(target) {
			done = "/"
		}
		pending = append(strings.Split(target, "/"), pending...)
	}
	return done, r.host(done), nil
}

func (r rootFS) host(inside string) string {
	if r == "" {
		return inside
	}
	return filepath.Join(string(r), filepath.FromSlash(inside))
}

// isMissing reports whether a path simply is not there, also because a part of
// it is no directory.
func isMissing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// Resolve follows the symbolic links of a path inside root, a directory that is used as "/"
// ("" or "/" is the machine's own), and returns the final path inside it and on this machine.
// Links cannot lead out of root.
func Resolve(root, name string) (inside, host string, err error) {
	return rootFS(root).resolve(name)
}
