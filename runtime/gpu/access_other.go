//go:build !linux

package gpu

// usable: only Linux has the device files of the amdgpu driver.
func (f FS) usable(_ Device) (ok bool, why string) {
	return false, "AMD GPUs are used on Linux only"
}

// AccessProblem: as usable.
func (f FS) AccessProblem(name string) (why string) {
	return name + " is not opened here; AMD GPUs are used on Linux only"
}
