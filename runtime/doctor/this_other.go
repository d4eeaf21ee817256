//go:build !linux

package doctor

import (
	"errors"
	"os"
)

// This is the machine that the program runs on; off Linux nothing is known of it.
func This() Machine {
	return Machine{
		Root: "/", Environ: os.Environ(),
		Disk: func(string) (Disk, error) { return Disk{}, errors.ErrUnsupported },
	}
}
