//go:build !linux

package modelstore

import (
	"errors"
	"os"
)

// cloneFile reports that the platform has no clones.
func cloneFile(*os.File, *os.File) error { return errors.ErrUnsupported }
