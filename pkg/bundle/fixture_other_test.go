//go:build !unix

package bundle_test

import (
	"errors"
	"fmt"
	"testing"
)

func diskUse(t *testing.T, path string) int64 {
	t.Helper()
	t.Fatalf("%s: no block count on this system", path)
	return 0
}

func mkfifo(path string) error { return fmt.Errorf("FIFO %s: %w", path, errors.ErrUnsupported) }
