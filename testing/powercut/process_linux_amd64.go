package powercut

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// directory returns the object of the directory that a path is in.
func (r *recorder) directory(path string) (object, bool) {
	var st unix.Stat_t
	if unix.Stat(filepath.Dir(path), &st) != nil || st.Dev != r.device {
		return 0, false
	}
	o, ok := r.inodes[st.Ino]
	return o, ok
}

// fd returns the path under which this process sees a file that the other has open.
func (r *recorder) fd(n uint64) string {
	return "/proc/" + strconv.Itoa(r.pid) + "/fd/" + strconv.Itoa(int(int32(n)))
}

// file returns the object of an open file, if it is below the directory.
func (r *recorder) file(fd uint64) (object, bool) {
	var st unix.Stat_t
	if unix.Stat(r.fd(fd), &st) != nil || st.Dev != r.device {
		return 0, false
	}
	o, ok := r.inodes[st.Ino]
	return o, ok && (st.Mode&unix.S_IFMT == unix.S_IFREG || st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

// position returns where the next write goes.
func (r *recorder) position(fd uint64) (int64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(r.pid) + "/fdinfo/" + strconv.Itoa(int(int32(fd))))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(raw), "pos:")
	line, _, _ := strings.Cut(rest, "\n")
	return strconv.ParseInt(strings.TrimSpace(line), 10, 64)
}

// path returns the absolute path of an argument.
func (r *recorder) path(dirfd, address uint64) (string, error) {
	name, err := r.text(address)
	if err != nil || filepath.IsAbs(name) {
		return filepath.Clean(name), err
	}
	base := r.fd(dirfd)
	if int32(dirfd) == unix.AT_FDCWD {
		base = "/proc/" + strconv.Itoa(r.pid) + "/cwd"
	}
	dir, err := os.Readlink(base)
	return filepath.Join(dir, name), err
}

// text returns a string of the process.
func (r *recorder) text(address uint64) (string, error) {
	const page = 4096
	var out []byte
	for {
		n := page - int(address%page)
		raw, err := r.memory(address, n)
		if err != nil {
			return "", err
		}
		if end := bytes.IndexByte(raw, 0); end >= 0 {
			return string(append(out, raw[:end]...)), nil
		}
		out, address = append(out, raw...), address+uint64(n)
	}
}

// memory returns n bytes of the process.
func (r *recorder) memory(address uint64, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	out := make([]byte, n)
	local := unix.Iovec{Base: &out[0]}
	local.SetLen(n)
	got, err := unix.ProcessVMReadv(r.pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(address), Len: n}}, 0)
	if err == nil && got != n {
		err = fmt.Errorf("%d of %d bytes of the process were read", got, n)
	}
	return out, err
}
