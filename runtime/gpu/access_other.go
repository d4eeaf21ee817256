//go:build !linux

package gpu

// usable: only Linux has the device files of the amdgpu driver.
func (f FS) usable(_ Device) (ok bool, why string) {
	return false, "AMD GPUs are used on Linux only"
}
