//go:build !linux

package doctor

import (
	"errors"
	"os"
)

// Local returns the machine that the program runs on; off Linux nothing is known of it.
func Local() Machine {
	return Machine{
		Root: "/", Environ: os.Environ(),
		Disk: func(string) (Disk, error) { return Disk{}, errors.ErrUnsupported },
	}
}
