// Package fsync makes changes of files durable: what a crash or a power failure must
// not undo.
package fsync

import (
	"errors"
	"os"
)

// Dir syncs the directory name below root, so that the names that were created,
// renamed or removed in it survive a power failure.
func Dir(root *os.Root, name string) error {
	d, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
