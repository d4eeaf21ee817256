//go:build !unix

package inference_test

import (
	"errors"
	"fmt"
)

func mkfifo(path string) error { return fmt.Errorf("FIFO %s: %w", path, errors.ErrUnsupported) }
