package gpu

import (
	"slices"
	"strconv"
	"strings"
)

// The variables of the masks, in the order in which the ROCm runtime applies them.
const (
	EnvROCR    = "ROCR_VISIBLE_DEVICES"
	EnvHIP     = "HIP_VISIBLE_DEVICES"
	EnvCUDA    = "CUDA_VISIBLE_DEVICES"
	EnvOrdinal = "GPU_DEVICE_ORDINAL"
)

// EnvTargetOverride makes the ROCm runtime treat every device as another target.
// With "_N" appended to its name it applies to the device of KFD node N and takes
// precedence (libhsakmt/src/topology.c).
const EnvTargetOverride = "HSA_OVERRIDE_GFX_VERSION"

// TargetOverrides returns the entries of an environment, in the form of os.Environ,
// that make the ROCm runtime treat devices as other targets.
func TargetOverrides(environ []string) []string {
	var out []string
	for _, e := range environ {
		name, _, ok := strings.Cut(e, "=")
		if rest, found := strings.CutPrefix(name, EnvTargetOverride); ok && found && (rest == "" || rest[0] == '_') {
			out = append(out, e)
		}
	}
	return out
}

// Mask is the selection of devices by environment variables.
//
// The HSA runtime applies ROCR_VISIBLE_DEVICES first (indices of its own
// order or "GPU-" and the beginning of a unique id; set but empty hides every
// device). The HIP runtime then applies HIP_VISIBLE_DEVICES, or CUDA_VISIBLE_DEVICES
// if that is empty, to the remaining devices. In each list, an entry that names no
// device ends the list. GPU_DEVICE_ORDINAL is documented for HIP as well, and used
// if the other two are empty.
type Mask struct {
	rocr    []string
	rocrSet bool
	hip     []string
	hipName string
}

// NewMask reads the masks of an environment in the form of os.Environ.
func NewMask(environ []string) Mask {
	var m Mask
	value := func(name string) (string, bool) {
		v, ok := "", false
		for _, e := range environ { // the last of several wins, as in os/exec
			if rest, found := strings.CutPrefix(e, name+"="); found {
				v, ok = rest, true
			}
		}
		return v, ok
	}
	var v string
	if v, m.rocrSet = value(EnvROCR); v != "" {
		m.rocr = splitList(v)
	}
	for _, name := range []string{EnvHIP, EnvCUDA, EnvOrdinal} {
		if v, _ := value(name); v != "" {
			m.hip, m.hipName = splitList(v), name
			break
		}
	}
	return m
}

// Empty reports whether no mask is set.
func (m Mask) Empty() bool { return !m.rocrSet && m.hipName == "" }

// Apply returns the devices with those that the masks hide marked as not visible,
// and the variable that hides them. The order is that of devices; HIPOrder returns
// the runtime's.
func (m Mask) Apply(devices []Device) []Device {
	out := slices.Clone(devices)
	hiddenBy := map[int]string{}
	runtimeOrder := enumerated(devices)
	kept := runtimeOrder
	if m.rocrSet {
		kept = applyList(kept, m.rocr, devices)
		for _, i := range runtimeOrder {
			if !slices.Contains(kept, i) {
				hiddenBy[i] = EnvROCR
			}
		}
	}
	if m.hipName != "" {
		left := applyList(kept, m.hip, devices)
		for _, i := range kept {
			if !slices.Contains(left, i) {
				hiddenBy[i] = m.hipName
			}
		}
	}
	for i, name := range hiddenBy {
		out[i].Visible, out[i].Masked = false, name
		out[i].UnusableReason = "hidden by " + name + " in the environment"
	}
	return out
}

// HIPOrder returns the positions in devices of those that HIP enumerates under the
// mask, in HIP's order.
func (m Mask) HIPOrder(devices []Device) []int {
	kept := enumerated(devices)
	if m.rocrSet {
		kept = applyList(kept, m.rocr, devices)
	}
	if m.hipName != "" {
		kept = applyList(kept, m.hip, devices)
	}
	return kept
}

// VisibleEnv returns the two variables, as KEY=VALUE, that make exactly the given
// devices visible to HIP, in that order. A device without a unique id is named by its
// index, which must be the index among all devices.
func VisibleEnv(chosen []Device) []string {
	rocr := make([]string, len(chosen))
	hip := make([]string, len(chosen))
	for i, d := range chosen {
		rocr[i] = d.UUID()
		if rocr[i] == "" {
			rocr[i] = strconv.Itoa(d.Index)
		}
		hip[i] = strconv.Itoa(i)
	}
	return []string{EnvROCR + "=" + strings.Join(rocr, ","), EnvHIP + "=" + strings.Join(hip, ",")}
}

// enumerated returns the positions of the devices that the runtime enumerates, in its
// order.
func enumerated(devices []Device) []int {
	var out []int
	for i, d := range devices {
		if d.Index >= 0 {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return devices[a].Index - devices[b].Index })
	return out
}

// applyList applies one list to candidates (positions in devices). It stops at the
// first entry that names no candidate or one that is already in the result.
func applyList(candidates []int, list []string, devices []Device) []int {
	var out []int
	for _, t := range list {
		i := findDevice(candidates, t, devices)
		if i < 0 || slices.Contains(out, i) {
			break
		}
		out = append(out, i)
	}
	return out
}

// findDevice returns the candidate that a token names, -1 for none or several.
func findDevice(candidates []int, token string, devices []Device) int {
	if !strings.HasPrefix(strings.ToUpper(token), "GPU-") {
		n, err := strconv.ParseUint(token, 10, 31)
		if err != nil || n >= uint64(len(candidates)) {
			return -1
		}
		return candidates[n]
	}
	if len(token) < 5 || len(token) > 20 {
		return -1
	}
	found := -1
	for _, i := range candidates {
		uuid := devices[i].UUID()
		if len(uuid) < len(token) || !strings.EqualFold(uuid[:len(token)], token) {
			continue
		}
		if found >= 0 {
			return -1
		}
		found = i
	}
	return found
}

func splitList(s string) []string {
	out := strings.Split(s, ",")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}
