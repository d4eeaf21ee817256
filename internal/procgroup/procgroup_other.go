//go:build !unix

package procgroup

import (
	"os/exec"
	"syscall"
)

func setGroup(*exec.Cmd, syscall.Signal) {}

func killGroup(int) {}
