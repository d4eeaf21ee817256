package userdirs

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile replaces a file of a cache directory. A program that reads it sees the old
// content or the new one, and never a part. It does not sync: what is cached can be
// found out again.
func WriteFile(path string, content []byte) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(content)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}
