//go:build !linux

package doctor

import (
	"errors"
	"os"
)

// Local returns the machine that the program runs on. Off Linux it can check nothing.
func Local() Machine {
	return Machine{
		Root: "/", Environ: os.Environ(),
		Disk: func(string) (Disk, error) { return Disk{}, errors.ErrUnsupported },
	}
}
