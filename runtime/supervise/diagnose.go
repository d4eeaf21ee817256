package supervise

import (
	"errors"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// logPattern matches a line of output that identifies a cause.
type logPattern struct {
	cause   error
	pattern *regexp.Regexp
	// source is the program or file that writes the line, to check new versions against.
	source string
	remedy string
}

const (
	remedyVRAM     = "use a smaller context, fewer slots or fewer GPU layers, or close other programs that use the GPU"
	remedyHostMem  = "close other programs, use a smaller model or context, or raise the memory limit"
	remedyHang     = "the GPU was reset: start again; if it happens again, update the kernel and the GPU firmware"
	remedyStall    = "the process was killed to free the GPU; if it happens again, update the kernel and the GPU firmware"
	remedyFault    = "this is a fault in a GPU kernel: try without flash attention, and report it with the lines above"
	remedyTarget   = "this build has no code for the GPU: use a build for its target, or try --override auto, which runs code for a related one"
	remedyModel    = "check the file against its published checksum and download it again; a new kind of model needs a newer llama.cpp"
	remedyMMProj   = "use the projector (mmproj) that was made for this model, and check its file against its published checksum"
	remedyLibrary  = "the bundle is incomplete or was changed: verify it with 'go-rocm verify' and install it again"
	remedyKFD      = "add the user to the group that owns /dev/kfd and /dev/dri/renderD* (usually render), then log in again"
	remedyDevice   = "run 'go-rocm doctor'; the lines above may show why the GPU code did not start"
	remedyArg      = "remove or correct the argument; 'llama-server --help' lists the arguments of this version"
	remedyAddress  = "choose another address, or stop the program that listens there"
	remedyStallCPU = "the process neither computed nor answered and was killed; if it happens again, report it with the lines above"
	remedyAVX      = "the CPU lacks an instruction that this build uses: use a build with all CPU variants"
)

// logPatterns returns the patterns in the order in which they are tried. The first
// that matches any line of the tail wins, so specific patterns come before general
// ones.
func logPatterns() []logPattern {
	s := func(kind error, pattern, source, remedy string) logPattern {
		return logPattern{cause: kind, pattern: regexp.MustCompile(pattern), source: source, remedy: remedy}
	}
	return []logPattern{
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

// harmlessLines matches lines after which the server goes on, although they contain
// the words of fatal ones: warnings with the text of an errno (llama-mmap.cpp, where
// a limit on locked memory is no lack of memory), and a prompt whose state is not
// kept (server-task.cpp).
func harmlessLines() *regexp.Regexp {
	return regexp.MustCompile(`\bwarning: |Falling back to buffered IO|failed to allocate memory for prompt cache state`)
}

// wasReady reports whether a process in this state had reached Ready.
func wasReady(s State) bool { return s == Ready || s == Stalled || s == Stopping }

// endsOnlyStart reports whether a cause ends a process before it is ready and
// never later. A program may go on after it wrote such a line, for example without
// the GPU that it may not open, and the line does not explain a later exit.
func endsOnlyStart(kind error) bool {
	return slices.Contains([]error{ErrModelInvalid, ErrBadArgument, ErrListen, ErrNoDevice, ErrPermission, ErrLibraryMissing}, kind)
}

// diagnose sets the cause, the line and the remedy of an exit from its last lines
// and its status. hostOOM reports that the kernel's out-of-memory killer ended a
// process of the control group during the child's life.
func diagnose(e *ExitError, hostOOM bool) {
	if e.Signal == syscall.SIGKILL && hostOOM {
		e.Kind, e.Remedy = ErrHostMemory, remedyHostMem
		e.Line = "the kernel's out-of-memory killer ended a process of this control group"
		return
	}
	lines := slices.DeleteFunc(slices.Clone(e.Log), harmlessLines().MatchString)
	// The loader binds a symbol at its first call and exits with this status if it
	// cannot.
	unbound := e.Signal == 0 && e.Code == 127
	for _, s := range logPatterns() {
		if wasReady(e.State) && endsOnlyStart(s.cause) && (!errors.Is(s.cause, ErrLibraryMissing) || !unbound) {
			continue
		}
		for _, line := range slices.Backward(lines) {
			if s.pattern.MatchString(line) {
				e.Kind, e.Remedy, e.Line = s.cause, s.remedy, strings.TrimSpace(line)
				return
			}
		}
	}
	switch {
	case e.Signal == syscall.SIGKILL:
		e.Remedy = "the process was killed with SIGKILL, often by the kernel's out-of-memory killer: see the kernel log"
	case e.Signal == syscall.SIGILL:
		e.Remedy = remedyAVX
	case unbound:
		e.Kind, e.Remedy = ErrLibraryMissing, remedyLibrary
	case e.Signal == 0 && e.Code == 126:
		e.Kind, e.Remedy = ErrPermission, "make the program executable and check that its directory is not mounted noexec"
	}
}
