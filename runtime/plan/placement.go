package plan

// onHost is the host in an assignment.
const onHost = -1

// assignment has the place of each layer, followed by that of the output layer: an
// index of a device, or onHost. expertsHost marks layers on a device whose expert
// weights stay on the host.
type assignment struct {
	device      []int
	expertsHost []bool
}

func (m *model) hostOnly() assignment {
	a := assignment{device: make([]int, len(m.layers)+1), expertsHost: make([]bool, len(m.layers)+1)}
	for i := range a.device {
		a.device[i] = onHost
	}
	return a
}

// usage is the expected memory of each place.
type usage struct {
	devices []Estimate
	host    Estimate
}

// usage returns the memory of each place for an assignment over n devices.
func (m *model) usage(a assignment, n int, l load) usage {
	u := usage{devices: make([]Estimate, n), host: Estimate{Name: "host", Weights: m.input}}
	place := func(d int) *Estimate {
		if d == onHost {
			return &u.host
		}
		return &u.devices[d]
	}
	for i := range m.layers {
		e := place(a.device[i])
		e.Layers++
		e.Weights += m.layers[i].dense
		e.KV = plus(e.KV, m.cacheBytes(i, l))
		experts := e
		if a.expertsHost[i] {
			experts = &u.host
		}
		experts.Weights += m.layers[i].experts
	}
	out := a.device[len(m.layers)]
	e := place(out)
	e.Layers++
	e.Weights += m.output
	if out != onHost {
		e.Weights += m.tied // the embedding is then loaded twice, for the input and for the output
	}
	m.scratch(&u, l, out, m.hostLargest(a))
	return u
}

// hostLargest returns the size of the largest layer tensor on the host.
func (m *model) hostLargest(a assignment) uint64 {
	var largest uint64
	for i := range m.layers {
		if a.device[i] == onHost || (a.expertsHost[i] && m.layers[i].experts > 0) {
			largest = max(largest, m.layers[i].largest)
		}
	}
	return largest
}

// scratch adds the compute memory of every place: for its layers, and for the
// output layer. If weights stay on the host, the devices also keep a copy of the
// tensor by which a large batch is being multiplied.
func (m *model) scratch(u *usage, l load, out int, hostLargest uint64) {
	layers, output := m.layersCompute(l), m.outputCompute(l)
	need := func(e *Estimate, hasOutput bool) uint64 {
		switch {
		case hasOutput && e.Layers > 1:
			return max(layers, output)
		case hasOutput:
			return output
		case e.Layers > 0:
			return layers
		}
		return 0
	}
	for d := range u.devices {
		e := &u.devices[d]
		if e.Compute = need(e, out == d); e.Layers > 0 {
			e.Compute = plus(e.Compute, hostLargest)
		}
	}
	u.host.Compute = max(need(&u.host, out == onHost), m.inputBytes(l))
}

// budget is the memory in bytes that may be used on each device.
type budget []uint64

func (u usage) fits(r budget) bool {
	for d, most := range r {
		if d < len(u.devices) && u.devices[d].Used() > most {
			return false
		}
	}
	return true
}

// split assigns the last n entries to the devices, in proportion to their budget,
// as llama.cpp does by default.
func (m *model) split(n int, r budget) assignment {
	a := m.hostOnly()
	total := len(a.device)
	var sum uint64
	for _, b := range r {
		sum += b
	}
	start := total - min(n, total)
	for i := start; i < total; i++ {
		d, upTo := 0, uint64(0)
		for d = range r {
			upTo += r[d]
			if float64(i-start)/float64(total-start) < float64(upTo)/float64(max(sum, 1)) {
				break
			}
		}
		a.device[i] = d
	}
	return a
}

// search returns the assignment that llama.cpp's --fit is expected to choose for a
// model that does not fit whole. For a dense model it is as many whole layers as
// fit, from the back. For a mixture of experts it is the dense part of as many
// layers as fit, and if all of them fit, whole layers from the front.
func (m *model) search(r budget, l load) (assignment, usage) {
	best := m.hostOnly()
	bestUse := m.usage(best, len(r), l)
	mixture := m.used > 0
	for n := 1; n <= len(m.layers)+1; n++ {
		a := m.split(n, r)
		if mixture {
			for i := range m.layers {
				a.expertsHost[i] = a.device[i] != onHost
			}
		}
		u := m.usage(a, len(r), l)
		if !u.fits(r) {
			break
		}
		best, bestUse = a, u
	}
	if !mixture || best.device[0] == onHost {
		return best, bestUse
	}
	for i := range m.layers {
		best.expertsHost[i] = false
		u := m.usage(best, len(r), l)
		if !u.fits(r) {
			best.expertsHost[i] = true
			break
		}
		bestUse = u
	}
	return best, bestUse
}

// onDevices returns the number of entries on devices, and how many of them have all
// their weights there.
func (a assignment) onDevices() (part, whole int) {
	for i, d := range a.device {
		if d == onHost {
			continue
		}
		part++
		if !a.expertsHost[i] {
			whole++
		}
	}
	return part, whole
}
