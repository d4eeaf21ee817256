//go:build !unix

package procgroup

import (
	"os/exec"
	"syscall"
)

func own(*exec.Cmd, syscall.Signal) {}

func kill(int) {}
