//go:build !linux

package gpu

// checkAccess returns false: only Linux has the device files of the amdgpu driver.
func (f FS) checkAccess(_ Device) (ok bool, why string) {
	return false, "AMD GPUs are supported on Linux only"
}

// AccessProblem returns the same reason for each file.
func (f FS) AccessProblem(name string) (reason string) {
	return name + " cannot be used here; AMD GPUs are supported on Linux only"
}
