//go:build e2e

package e2e

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
	"forge.lthn.ai/core/go-rocm/testing/rdna3"
	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

// emulated is a card with buffers, that runs kernels of the shipped libggml-hip.
type emulated struct {
	t       *testing.T
	mem     *rdna3.Memory
	next    uint64
	objects map[string]*rdna3.Object // by a kernel that they have
	stats   rdna3.Stats
	spent   time.Duration
	shared  uint32 // bytes of LDS that a launch asks for
}

// emulate loads the code objects of libggml-hip for a target that have a kernel whose name begins as one of kernels.
func emulate(t *testing.T, target gfx.Target, kernels ...string) *emulated {
	t.Helper()
	e := &emulated{t: t, mem: &rdna3.Memory{}, next: 0x7f00_0000_0000, objects: map[string]*rdna3.Object{}}
	err := survey.Walk([]string{filepath.Join(unpackedHIP(t).Dir, "libggml-hip.so")}, func(c survey.CodeObject) error {
		for _, k := range kernels {
			if c.Target != target || e.objects[k] != nil || !strings.Contains(string(c.Code), k) {
				continue
			}
			o, err := e.mem.Load(c.Code, e.place(len(c.Code)*2))
			if err != nil {
				return err
			}
			for name := range o.Kernels {
				if strings.HasPrefix(name, k) {
					e.objects[k] = o
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// place returns an address with room for n bytes.
func (e *emulated) place(n int) uint64 {
	const page = 1 << 12
	at := e.next
	e.next += uint64(n+page) &^ (page - 1)
	e.next += page
	return at
}

// buffer maps memory with the values and returns its address and content.
func (e *emulated) buffer(values any) (uint64, []byte) {
	e.t.Helper()
	b, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		e.t.Fatal(err)
	}
	at := e.place(len(b))
	e.mem.Map(at, b)
	return at, b
}

// run starts the kernel whose name begins with prefix on blocks of threads.
func (e *emulated) run(prefix string, blocks, threads [3]uint32, args ...any) {
	e.t.Helper()
	if err := e.try(prefix, blocks, threads, args...); err != nil {
		e.t.Fatal(err)
	}
}

func (e *emulated) try(prefix string, blocks, threads [3]uint32, args ...any) error {
	e.t.Helper()
	o := e.objects[prefix]
	if o == nil {
		e.t.Fatalf("no code object has a kernel %s", prefix)
	}
	d := &rdna3.Dispatch{Group: threads, LDS: e.shared, Limit: 1 << 24}
	for name, k := range o.Kernels {
		if strings.HasPrefix(name, prefix) {
			d.Kernel = k
		}
	}
	if threads[0] == 0 { // as many as the kernel is compiled for
		d.Group = [3]uint32{uint32(d.Kernel.Lanes), uint32(d.Kernel.MaxGroup / d.Kernel.Lanes), 1}
	}
	for n := range d.Grid {
		d.Grid[n] = blocks[n] * d.Group[n]
	}
	block, err := d.Arguments(args...)
	if err != nil {
		e.t.Fatal(err)
	}
	d.Kernarg, _ = e.buffer(block)
	d.Packet, _ = e.buffer(d.AppendPacket(nil))
	started := time.Now()
	stats, err := e.mem.Run(e.t.Context(), d)
	e.spent += time.Since(started)
	e.stats.Instructions += stats.Instructions
	e.stats.Lanes += stats.Lanes
	return err
}

func floatsOf(b []byte) []float32 {
	out := make([]float32, len(b)/4)
	for n := range out {
		out[n] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*n:]))
	}
	return out
}

// closeTo fails the test unless the numbers are as near as floats of this size are to each other.
func closeTo(t *testing.T, what string, got, want []float32, within float64) {
	t.Helper()
	bad := 0
	for n := range want {
		if d := math.Abs(float64(got[n] - want[n])); d > within*math.Max(1, math.Abs(float64(want[n]))) || math.IsNaN(d) {
			if bad++; bad < 5 {
				t.Errorf("%s: element %d is %v, and not %v", what, n, got[n], want[n])
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d of %d differ", what, bad, len(want))
	}
}

func random(r *rand.Rand, n int) []float32 {
	out := make([]float32, n)
	for i := range out {
		out[i] = float32(r.NormFloat64())
	}
	return out
}

// divisor is a uint3 with which a kernel divides by one.
var divisor = [3]uint32{1, 0, 1}

const (
	kernelScale    = "_ZL9scale_f32PKfPfffl"
	kernelNorm     = "_ZL12rms_norm_f32ILi256ELb0ELb0EEv"
	kernelQuantize = "_ZL13quantize_q8_1PKfPvlllllj15HIP_vector_typeIjLj3EE"
	kernelVector   = "_ZL13mul_mat_vec_qIL9ggml_type8ELi1ELb0ELb0ELb0EEv"
)

// TestRDNA3RunsShippedKernels runs kernels of the shipped libggml-hip for both targets in the interpreter: scale, RMS
// norm, the quantisation of activations, and the product of a matrix in Q8_0 and a vector. The numbers are those that
// Go computes from the same input.
func TestRDNA3RunsShippedKernels(t *testing.T) {
	for _, target := range []gfx.Target{"gfx1100", "gfx1101"} {
		t.Run(string(target), func(t *testing.T) {
			e := emulate(t, target, kernelScale, kernelNorm, kernelQuantize, kernelVector)
			r := rand.New(rand.NewPCG(1, 2))
			e.scale(r)
			e.norm(r)
			e.product(r)
			e.faults()
			t.Logf("%d instructions, %.1f million lane-instructions a second", e.stats.Instructions, float64(e.stats.Lanes)/e.spent.Seconds()/1e6)
		})
	}
}

func (e *emulated) scale(r *rand.Rand) {
	const n, threads = 1000, 256
	x := random(r, n)
	src, _ := e.buffer(x)
	dst, out := e.buffer(make([]float32, n))
	e.run(kernelScale, [3]uint32{(n + threads - 1) / threads, 1, 1}, [3]uint32{threads, 1, 1}, src, dst, float32(1.5), float32(-0.25), int64(n))
	want := make([]float32, n)
	for i := range want {
		want[i] = 1.5*x[i] - 0.25
	}
	closeTo(e.t, "scale", floatsOf(out), want, 1e-6)
}

func (e *emulated) norm(r *rand.Rand) {
	const columns, rows, eps = 576, 5, 1e-5
	x := random(r, columns*rows)
	src, _ := e.buffer(x)
	dst, out := e.buffer(make([]float32, columns*rows))
	none := [3]uint32{}
	e.shared = 32 * 4 // a float for each wave that a block may have
	defer func() { e.shared = 0 }()
	e.run(kernelNorm, [3]uint32{rows, 1, 1}, [3]uint32{256, 1, 1}, src, dst, int32(columns), int64(columns), int64(columns*rows),
		int64(columns*rows), float32(eps), uint64(0), int64(0), int64(0), int64(0), none, none, none, none, uint64(0),
		int64(0), int64(0), int64(0), none, none, none, none)
	var want []float32
	for row := range rows {
		sum := 0.0
		for _, v := range x[row*columns : (row+1)*columns] {
			sum += float64(v) * float64(v)
		}
		for _, v := range x[row*columns : (row+1)*columns] {
			want = append(want, float32(float64(v)/math.Sqrt(sum/columns+eps)))
		}
	}
	closeTo(e.t, "RMS norm", floatsOf(out), want, 1e-5)
}

// q8Block is the number of elements of a block of Q8_0 and Q8_1.
const q8Block = 32

// quantize runs the kernel that quantises activations, and returns what the blocks say, after a comparison with x.
func (e *emulated) quantize(x []float32) (addr uint64, back []float64) {
	const blockBytes, threads = 36, 256
	n := len(x)
	src, _ := e.buffer(x)
	addr, out := e.buffer(make([]byte, n/q8Block*blockBytes))
	e.run(kernelQuantize, [3]uint32{uint32(n / threads), 1, 1}, [3]uint32{threads, 1, 1}, src, addr, int64(n), int64(n),
		int64(n), int64(n), int64(n), uint32(1), divisor)
	for b := range n / q8Block {
		block := out[b*blockBytes : (b+1)*blockBytes]
		d := rdna3.Float16(binary.LittleEndian.Uint16(block))
		for i, q := range block[4:] {
			v := d * float64(int8(q))
			// Half a step, and the rounding of the step itself to eleven bits.
			if want := float64(x[b*q8Block+i]); math.Abs(v-want) > 0.57*d {
				e.t.Errorf("quantised element %d is %v, of %v", b*q8Block+i, v, want)
			}
			back = append(back, v)
		}
	}
	return addr, back
}

// product multiplies a matrix of Q8_0 by a vector that the quantisation kernel makes from floats.
func (e *emulated) product(r *rand.Rand) {
	const columns, rows = 2048, 512
	quantized, x := e.quantize(random(r, columns))
	var matrix []byte
	want := make([]float32, rows)
	for row := range rows {
		sum := 0.0
		for b := range columns / q8Block {
			const half = 0x2800 // 1/32 as a float16
			matrix = binary.LittleEndian.AppendUint16(matrix, half)
			for i := range q8Block {
				q := int8(r.IntN(255) - 127)
				matrix = append(matrix, byte(q))
				sum += float64(q) / 32 * x[b*q8Block+i]
			}
		}
		want[row] = float32(sum)
	}
	m, _ := e.buffer(matrix)
	dst, out := e.buffer(make([]float32, rows))
	fusion := make([]byte, e.argument(kernelVector, 3))
	const stride = uint32(columns / q8Block)
	e.run(kernelVector, [3]uint32{rows, 1, 1}, [3]uint32{}, m, quantized, uint64(0), fusion, dst, uint32(columns), divisor,
		stride, stride, uint32(rows), divisor, rows*stride, stride, uint32(rows), divisor, rows*stride, stride, uint32(rows), uint32(0))
	closeTo(e.t, "product in Q8_0", floatsOf(out), want, 1e-4)
}

// argument returns the size of an argument of a kernel.
func (e *emulated) argument(prefix string, n int) int {
	for name, k := range e.objects[prefix].Kernels {
		if strings.HasPrefix(name, prefix) {
			return k.Args[n].Size
		}
	}
	return 0
}

// faults checks that a kernel with a pointer to nowhere is stopped, with its name and the instruction.
func (e *emulated) faults() {
	err := e.try(kernelScale, [3]uint32{1, 1, 1}, [3]uint32{256, 1, 1}, uint64(0x1234), uint64(0x5678), float32(1), float32(0), int64(256))
	var fault *rdna3.Fault
	var memory *rdna3.MemoryError
	if !errors.As(err, &fault) || !errors.As(err, &memory) || fault.Kernel != kernelScale || !strings.HasPrefix(fault.Text, "global_load") || memory.Addr != 0x1234 {
		e.t.Errorf("a pointer to nowhere: %v", err)
	}
}
