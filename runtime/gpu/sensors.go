package gpu

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
)

// readSensors reads hwmon: temperatures in thousandths of a degree, power in
// millionths of a watt, clocks in hertz. It reads nothing of a card that is suspended
// at run time.
func (f FS) readSensors(dir string) Sensors {
	if status, err := f.read(dir, "power/runtime_status"); err == nil && string(status) == "suspended" {
		return Sensors{Suspended: true}
	}
	s := Sensors{BusyPercent: float64(f.optional(dir, "gpu_busy_percent")), Throttled: f.throttled(dir)}
	mons, err := f.numbered("hwmon", dir, "hwmon")
	if err != nil {
		return s
	}
	for _, n := range mons {
		mon := filepath.Join(dir, "hwmon", fmt.Sprintf("hwmon%d", n))
		if name, err := f.read(mon, "name"); err != nil || string(name) != "amdgpu" {
			continue
		}
		for i := 1; i <= 3; i++ {
			label, _ := f.read(mon, fmt.Sprintf("temp%d_label", i)) // without a label the value is not used
			t := float64(f.optional(mon, fmt.Sprintf("temp%d_input", i))) / 1e3
			switch string(label) {
			case "edge":
				s.EdgeCelsius = t
			case "junction":
				s.JunctionCelsius = t
			case "mem":
				s.MemoryCelsius = t
			}
		}
		power := f.optional(mon, "power1_average")
		if power == 0 {
			power = f.optional(mon, "power1_input")
		}
		s.PowerWatts = float64(power) / 1e6
		s.PowerCapWatts = float64(f.optional(mon, "power1_cap")) / 1e6
		s.ShaderMHz = float64(f.optional(mon, "freq1_input")) / 1e6
		s.MemoryMHz = float64(f.optional(mon, "freq2_input")) / 1e6
	}
	return s
}

// The kinds of limits on a card's clocks.
const (
	ThrottlePower       = "power"
	ThrottleCurrent     = "current"
	ThrottleTemperature = "temperature"
	ThrottleOther       = "other"
)

// ThrottleKinds returns all of them. Their order is that of the groups of 16 bits in
// the driver's status that does not depend on the card (SMU_THROTTLER_*_BIT in
// amdgpu_smu.h).
func ThrottleKinds() []string {
	return []string{ThrottlePower, ThrottleCurrent, ThrottleTemperature, ThrottleOther}
}

// The place of that status in revision 1.3 of the driver's metrics table, that of
// discrete cards since RDNA 2 (gpu_metrics_v1_3 in kgd_pp_interface.h).
const throttleRevision, throttleOffset = 0x0301, 112

// throttled returns what limits the clocks.
func (f FS) throttled(dir string) []string {
	b, err := f.readRaw(dir, "gpu_metrics")
	if err != nil || len(b) < throttleOffset+8 || binary.LittleEndian.Uint16(b[2:]) != throttleRevision {
		return nil
	}
	status := binary.LittleEndian.Uint64(b[throttleOffset:])
	if status == ^uint64(0) {
		return nil // the driver fills what it does not know with ones
	}
	var kinds []string
	for i, kind := range ThrottleKinds() {
		if status>>(16*i)&0xffff != 0 {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}
