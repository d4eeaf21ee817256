package gpu

import (
	"slices"
	"strconv"
	"strings"
)

// Names of the masks, in the order in which the ROCm runtime applies them.
const (
	EnvROCR    = "ROCR_VISIBLE_DEVICES"
	EnvHIP     = "HIP_VISIBLE_DEVICES"
	EnvCUDA    = "CUDA_VISIBLE_DEVICES"
	EnvOrdinal = "GPU_DEVICE_ORDINAL"
)

// EnvTargetOverride makes the ROCm runtime take every device for another target; with
// "_N" behind its name it does so for the device of KFD node N, and goes before
// the one without (libhsakmt/src/topology.c).
const EnvTargetOverride = "HSA_OVERRIDE_GFX_VERSION"

// Overrides lists the entries of an environment, in the form of os.Environ, that
// make the ROCm runtime take devices for other targets.
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

// Mask is what an environment says about the devices to be used.
//
// The HSA runtime applies ROCR_VISIBLE_DEVICES first (indices of its own
// order or "GPU-" and the beginning of a unique id; set but empty hides every
// device); the HIP runtime then applies HIP_VISIBLE_DEVICES, or
// CUDA_VISIBLE_DEVICES when that is empty, to what is left. In each list,
// whatever follows an entry that names no device is void. GPU_DEVICE_ORDINAL
// is documented for HIP as well, and taken when the other two are empty.
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
		m.rocr = tokens(v)
	}
	for _, name := range []string{EnvHIP, EnvCUDA, EnvOrdinal} {
		if v, _ := value(name); v != "" {
			m.hip, m.hipName = tokens(v), name
			break
		}
	}
	return m
}

// Empty reports whether nothing is masked.
func (m Mask) Empty() bool { return !m.rocrSet && m.hipName == "" }

// Apply marks the devices that the masks hide, with the variable that does it.
// The result is in the order of devices; HIPOrder gives the runtime's.
func (m Mask) Apply(devices []Device) []Device {
	out := slices.Clone(devices)
	seen := map[int]string{}
	enumerated := indices(devices)
	kept := enumerated
	if m.rocrSet {
		kept = choose(kept, m.rocr, devices)
		for _, i := range enumerated {
			if !slices.Contains(kept, i) {
				seen[i] = EnvROCR
			}
		}
	}
	if m.hipName != "" {
		left := choose(kept, m.hip, devices)
		for _, i := range kept {
			if !slices.Contains(left, i) {
				seen[i] = m.hipName
			}
		}
	}
	for i, name := range seen {
		out[i].Visible = false
		out[i].UnusableReason = "hidden by " + name + " in the environment"
	}
	return out
}

// HIPOrder gives the positions in devices of what HIP enumerates under the
// mask, in HIP's order.
func (m Mask) HIPOrder(devices []Device) []int {
	kept := indices(devices)
	if m.rocrSet {
		kept = choose(kept, m.rocr, devices)
	}
	if m.hipName != "" {
		kept = choose(kept, m.hip, devices)
	}
	return kept
}

// For gives the two variables that show HIP exactly the given devices, in that
// order, as KEY=VALUE. A device without a unique id is named by its index,
// which must then be among all.
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

// indices lists the devices that the runtime enumerates, in its order.
func indices(devices []Device) []int {
	var out []int
	for i, d := range devices {
		if d.Index >= 0 {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b int) int { return devices[a].Index - devices[b].Index })
	return out
}

// choose applies one list to candidates (positions in devices): entries in
// order until the first that names none or one already taken.
func choose(candidates []int, list []string, devices []Device) []int {
	var out []int
	for _, t := range list {
		i := lookup(candidates, t, devices)
		if i < 0 || slices.Contains(out, i) {
			break
		}
		out = append(out, i)
	}
	return out
}

// lookup finds the candidate that a token names, -1 for none or several.
func lookup(candidates []int, token string, devices []Device) int {
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

func tokens(s string) []string {
	out := strings.Split(s, ",")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}
