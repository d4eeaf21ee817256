package rdna3

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Arguments returns the argument block of a dispatch: the values of the arguments that the source code has, in their
// order, and the hidden ones that the compiler added. The packet needs its address afterwards.
func (d *Dispatch) Arguments(values ...any) ([]byte, error) {
	k := d.Kernel
	out := make([]byte, k.ArgBytes)
	for _, a := range k.Args {
		if a.Offset < 0 || a.Size < 0 || a.Offset+a.Size > len(out) {
			return nil, fmt.Errorf("argument %s of %s is outside its %d bytes", a.Name, k.Name, len(out))
		}
		to := out[a.Offset : a.Offset+a.Size]
		if strings.HasPrefix(a.Kind, "hidden_") {
			d.hidden(a.Kind, to)
			continue
		}
		if len(values) == 0 {
			return nil, fmt.Errorf("%s has more arguments", k.Name)
		}
		b, err := binary.Append(nil, binary.LittleEndian, values[0])
		if err != nil {
			return nil, err
		}
		if len(b) != a.Size {
			return nil, fmt.Errorf("argument %s of %s has %d bytes, and not %d", a.Name, k.Name, a.Size, len(b))
		}
		copy(to, b)
		values = values[1:]
	}
	if len(values) > 0 {
		return nil, fmt.Errorf("%s has %d arguments fewer", k.Name, len(values))
	}
	return out, nil
}

// hidden sets a hidden argument. Those for printf, the heap and queues stay zero.
func (d *Dispatch) hidden(kind string, to []byte) {
	var x uint64
	name, dim := kind, 0
	if len(kind) > 2 && kind[len(kind)-2] == '_' {
		name, dim = kind[:len(kind)-2], int(kind[len(kind)-1]-'x')
	}
	if dim < 0 || dim > 2 {
		return
	}
	switch name {
	case "hidden_block_count":
		x = uint64(d.Grid[dim] / d.Group[dim])
	case "hidden_group_size":
		x = uint64(d.Group[dim])
	case "hidden_remainder":
		x = uint64(d.Grid[dim] % d.Group[dim])
	case "hidden_grid_dims":
		x = 1
		for n := range d.Grid {
			if d.Grid[n] > 1 {
				x = uint64(n + 1)
			}
		}
	case "hidden_dynamic_lds_size":
		x = uint64(d.LDS)
	case "hidden_private_base":
		x = PrivateAperture >> 32
	case "hidden_shared_base":
		x = SharedAperture >> 32
	case "hidden_queue_ptr":
		x = d.Queue
	}
	for n := range to {
		to[n] = byte(x >> (8 * n))
	}
}
