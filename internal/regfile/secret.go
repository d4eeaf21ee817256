package regfile

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

const (
	othersWrite fs.FileMode = 0o022
	othersRead  fs.FileMode = 0o004
)

// ReadSecret is ReadText for a file with keys. It rejects a file that other users may
// write, or may read.
//
// The group may read: a file of root's that the service's group reads is a usual
// form, and so is systemd's credential (mode 0440). A file that all may read is
// accepted, and warn is called, where a service manager put it for this program alone:
// on a mount that is read-only, or root's on one that is in memory. So Docker (0444)
// and Kubernetes (0644) provide secrets, and their modes cannot always be chosen.
func ReadSecret(name string, limit int64, warn func(text string)) ([]byte, error) {
	return readPrivate(name, limit, func(f *os.File, mode fs.FileMode) error {
		switch {
		case mode&othersRead == 0:
			return nil
		case isMountedSecret(f):
			warn(fmt.Sprintf("every user may read the keys in %s (mode %04o); its mount is taken for one that only this program sees", name, mode.Perm()))
			return nil
		}
		return fmt.Errorf("%s: every user may read the keys in it (mode %04o); run: chmod 600 %s (640 where a service reads it as its group)", name, mode.Perm(), name)
	})
}

// ReadPublic is ReadText for a file, such as a certificate, that others may read. It
// rejects one that they may write.
func ReadPublic(name string, limit int64) ([]byte, error) {
	return readPrivate(name, limit, func(*os.File, fs.FileMode) error { return nil })
}

func readPrivate(name string, limit int64, check func(f *os.File, mode fs.FileMode) error) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat() // of the file that is read, not of what the name means now
	if err != nil {
		return nil, err
	}
	if info.Mode()&othersWrite != 0 {
		return nil, fmt.Errorf("%s: other users may write it (mode %04o); run: chmod go-w %s", name, info.Mode().Perm(), name)
	}
	if err := check(f, info.Mode()); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = ErrTooLarge
	}
	if err == nil {
		raw, err = Text(raw)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return raw, nil
}
