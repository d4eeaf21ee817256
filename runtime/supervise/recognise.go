package supervise

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// sign is a line of output that tells a cause.
type sign struct {
	kind    error
	pattern *regexp.Regexp
	// source says where the line comes from, so that a new version can be checked.
	source string
	remedy string
}

const (
	remedyVRAM     = "use a smaller context, fewer slots or fewer GPU layers, or close what else uses the GPU"
	remedyHostMem  = "close other programs, use a smaller model or context, or raise the memory limit"
	remedyHang     = "the GPU was reset: start again; if it comes back, update the kernel and the GPU firmware"
	remedyStall    = "the process was ended to give the GPU back; if it comes back, update the kernel and the GPU firmware"
	remedyFault    = "this is a fault in a GPU kernel: try without flash attention, and report it with the lines above"
	remedyTarget   = "this build has no code for the GPU: use a build for its target, or try --override auto, which runs code for a related one"
	remedyModel    = "check the file against its published checksum and fetch it again; a new kind of model needs a newer llama.cpp"
	remedyMMProj   = "give the projector (mmproj) that was made for this very model, and check its file against its published checksum"
	remedyLibrary  = "the bundle is incomplete or was changed: verify it with 'go-rocm verify' and install it again"
	remedyKFD      = "add the user to the group that owns /dev/kfd and /dev/dri/renderD* (usually render), then log in again"
	remedyDevice   = "run 'go-rocm doctor'; the lines above may say why the GPU code did not start"
	remedyArg      = "remove or correct the argument; 'llama-server --help' lists what this version knows"
	remedyAddress  = "choose another address or end what listens there"
	remedyStallCPU = "the process was ended, which neither computed nor answered; if it comes back, report it with the lines above"
	remedyAVX      = "the CPU lacks an instruction that this build uses: use a build with all CPU variants"
)

// signs are tried in order; the first that matches any line of the tail wins,
// so what is more exact stands before what is more general.
func signs() []sign {
	s := func(kind error, pattern, source, remedy string) sign {
		return sign{kind: kind, pattern: regexp.MustCompile(pattern), source: source, remedy: remedy}
	}
	return []sign{
		s(ErrGPUHang, `HW Exception by GPU node-\d+.*GPU Hang`, "ROCR runtime", remedyHang),
		s(ErrGPUHang, `HSA_STATUS_ERROR_HARDWARE_EXCEPTION|hipErrorLaunchTimeOut`, "ROCR, HIP", remedyHang),
		s(ErrGPUFault, `Memory access fault by GPU node-\d+`, "ROCR runtime", remedyFault),
		s(ErrGPUFault, `an illegal memory access was encountered|HSA_STATUS_ERROR_MEMORY_APERTURE_VIOLATION`, "HIP, ROCR", remedyFault),
		s(ErrUnsupportedTarget, `rocBLAS error: Cannot read .*TensileLibrary`, "rocBLAS", remedyTarget),
		s(ErrUnsupportedTarget, `hipErrorNoBinaryForGpu|no kernel image is available|invalid device function|HSA_STATUS_ERROR_INVALID_ISA`, "HIP, ROCR", remedyTarget),
		s(ErrPermission, `Unable to open /dev/kfd.*(Permission denied|Operation not permitted)`, "ROCm thunk", remedyKFD),
		s(ErrOutOfMemory, `cudaMalloc failed: out of memory|hipMalloc failed: out of memory|ROCm error: out of memory|CUDA error: out of memory`, "ggml-cuda.cu", remedyVRAM),
		s(ErrHostMemory, `unable to allocate (CPU\w*|AMX|\w+_Host) buffer|failed to allocate (CPU\w*|AMX|\w+_Host) buffer of size|failed to allocate buffer of size \d`, "llama-model.cpp, ggml-alloc.c, ggml-backend.cpp", remedyHostMem),
		s(ErrOutOfMemory, `unable to allocate \S+ buffer|failed to allocate \S+ buffer of size|failed to allocate buffer for|failed to allocate compute (pp |tg )?buffers|HSA_STATUS_ERROR_OUT_OF_RESOURCES`, "llama-model.cpp, ggml-alloc.c, llama-kv-cache.cpp", remedyVRAM),
		s(ErrHostMemory, `std::bad_alloc|failed to allocate +[\d.]+ MB|Cannot allocate memory`, "libstdc++, ggml.c, libc", remedyHostMem),
		s(ErrLibraryMissing, `error while loading shared libraries: `, "glibc's loader", remedyLibrary),
		s(ErrLibraryMissing, "symbol lookup error: |version `[^']+' not found", "glibc's loader", remedyLibrary),
		s(ErrNoDevice, `invalid device: ROCm\d+`, "common/arg.cpp", remedyDevice),
		s(ErrBadArgument, `error: invalid argument: |error while handling argument `, "common/arg.cpp", remedyArg),
		s(ErrListen, `couldn't bind HTTP server socket|couldn't start HTTP listener`, "server-http.cpp", remedyAddress),
		s(ErrModelInvalid, `mismatch between (text model|vision and audio mmproj)`, "mtmd.cpp", remedyMMProj),
		s(ErrModelInvalid, `clip_init: failed to load model|failed to load multimodal model`, "clip.cpp, server-context.cpp", remedyMMProj),
		s(ErrModelInvalid, `invalid magic characters|data is not within the file bounds|unknown model architecture|unknown pre-tokenizer type`, "gguf.cpp, llama-model-loader.cpp, llama-model.cpp, llama-vocab.cpp", remedyModel),
		s(ErrModelInvalid, `error loading model|failed to open GGUF file|failed to load model`, "llama.cpp, gguf.cpp, common.cpp", remedyModel),
	}
}

// harmless are lines after which the server goes on, in the words of those that
// end it: warnings with the text of an errno (llama-mmap.cpp, where a limit on
// locked memory is no lack of it), and a prompt that is not kept
// (server-task.cpp).
func harmless() *regexp.Regexp {
	return regexp.MustCompile(`\bwarning: |Falling back to buffered IO|failed to allocate memory for prompt cache state`)
}

// serving reports whether a process in this state had been ready.
func serving(s State) bool { return s == Ready || s == Stalled || s == Stopping }

// startsOnly reports whether a cause ends a process before it is ready and never
// later. A program may live on after the line that tells it, as one does without
// the GPU that it may not open, and the line is no cause of a later death.
func startsOnly(kind error) bool {
	return slices.Contains([]error{ErrModelInvalid, ErrBadArgument, ErrListen, ErrNoDevice, ErrPermission, ErrLibraryMissing}, kind)
}

// recognise finds the cause of an exit in its last lines and its status.
// hostOOM says that the kernel's out-of-memory killer struck in our control
// group during the child's life.
func recognise(e *ExitError, hostOOM bool) {
	if e.Signal == syscall.SIGKILL && hostOOM {
		e.Kind, e.Remedy = ErrHostMemory, remedyHostMem
		e.Line = "the kernel's out-of-memory killer ended a process of this control group"
		return
	}
	told := slices.DeleteFunc(slices.Clone(e.Log), harmless().MatchString)
	// The loader binds symbols when they are called first, and ends with that status.
	unbound := e.Signal == 0 && e.Code == 127
	for _, s := range signs() {
		if serving(e.State) && startsOnly(s.kind) && (!errors.Is(s.kind, ErrLibraryMissing) || !unbound) {
			continue
		}
		for _, line := range slices.Backward(told) {
			if s.pattern.MatchString(line) {
				e.Kind, e.Remedy, e.Line = s.kind, s.remedy, strings.TrimSpace(line)
				return
			}
		}
	}
	switch {
	case e.Signal == syscall.SIGKILL:
		e.Remedy = "something ended it with SIGKILL; often that is the kernel's out-of-memory killer: see the kernel log"
	case e.Signal == syscall.SIGILL:
		e.Remedy = remedyAVX
	case unbound:
		e.Kind, e.Remedy = ErrLibraryMissing, remedyLibrary
	case e.Signal == 0 && e.Code == 126:
		e.Kind, e.Remedy = ErrPermission, "make the program executable and see that its folder is not mounted noexec"
	}
}
