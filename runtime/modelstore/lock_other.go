//go:build !unix

package modelstore

import "os"

// lockFD does nothing: only Unix has flock(2).
func lockFD(*os.File, bool) (locked bool, err error) { return true, nil }
