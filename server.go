package rocm

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"forge.lthn.ai/core/go-rocm/pkg/gguf"
	"forge.lthn.ai/core/go-rocm/pkg/inference"
	"forge.lthn.ai/core/go-rocm/runtime/gpu"
	"forge.lthn.ai/core/go-rocm/runtime/locate"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
	"forge.lthn.ai/core/go-rocm/runtime/supervise"
)

// Server is a llama-server that runs a model. The command line serves one, and a
// Model uses one.
type Server struct {
	// Child is the supervised process.
	Child *supervise.Child
	// Plan has the arguments of the process and the reasons for them. It is the plan
	// that loading ended with; see CurrentPlan.
	Plan *plan.Plan
	// Path is the model's file, Info the contract's facts from its header.
	Path string
	Info inference.ModelInfo
	// Origin is where the bundle was found, BundleDir the directory that the
	// process runs in.
	Origin    locate.Origin
	BundleDir string

	current     atomic.Pointer[plan.Plan] // of the process that runs now
	program     *locate.Program
	sysfs       gpu.FS
	mediaMarker string // stands for an image or a sound in a prompt to the server
}

// setPlan sets the plan of a start that has not ended.
func (srv *Server) setPlan(p *plan.Plan) {
	srv.Plan = p
	srv.current.Store(p)
}

// CurrentPlan returns the plan of the process that runs now. It differs from Plan
// after a backend failed repeatedly and another one took over.
func (srv *Server) CurrentPlan() *plan.Plan {
	if p := srv.current.Load(); p != nil {
		return p
	}
	return srv.Plan
}

// devices returns the devices in use.
func (srv *Server) devices() []gpu.Device {
	if p := srv.CurrentPlan(); p != nil {
		return p.Chosen
	}
	return nil
}

// waitVRAMFree waits until the GPU memory of a dead child is free again.
func (srv *Server) waitVRAMFree(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	const slack = 16 << 20
	for _, d := range srv.devices() {
		if !d.MemoryKnown {
			continue // the kernel has no counters of it
		}
		if _, err := srv.sysfs.WaitVRAMFree(ctx, d, 100*time.Millisecond, slack); err != nil {
			return err
		}
	}
	return nil
}

// usedMemory returns the memory in use on the plan's devices, 0 without a GPU.
func (srv *Server) usedMemory() uint64 {
	var sum uint64
	for _, d := range srv.devices() {
		s := srv.sysfs.Sample(d)
		if s.Err != nil {
			continue
		}
		sum += s.VRAMUsed
		if d.Integrated {
			sum += s.GTTUsed
		}
	}
	return sum
}

// Close stops the server.
func (srv *Server) Close() error {
	return errors.Join(srv.Child.Stop(context.Background()), srv.program.Close())
}

// modelInfo returns the contract's facts from a header.
func modelInfo(f *gguf.File) inference.ModelInfo {
	return inference.ModelInfo{
		Architecture: f.Architecture(), VocabSize: f.VocabSize(), NumLayers: f.BlockCount(),
		HiddenSize: f.EmbeddingLength(), QuantBits: f.QuantBits(), QuantGroup: f.QuantGroup(),
	}
}
