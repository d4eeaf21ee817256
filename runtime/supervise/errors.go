package supervise

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The causes of a failure, for errors.Is.
var (
	// ErrOutOfMemory: the GPU or the host has too little memory.
	ErrOutOfMemory = errors.New("out of memory")
	// ErrHostMemory: the host has too little memory. It is an ErrOutOfMemory too.
	ErrHostMemory = fmt.Errorf("the host is %w", ErrOutOfMemory)
	// ErrMemoryLimit: the program allocated more than Spec.LoadingMemory.
	ErrMemoryLimit = errors.New("allocates more memory than loading the model needs")
	// ErrGPUHang: the GPU stopped answering and was reset.
	ErrGPUHang = errors.New("gpu hang")
	// ErrGPUFault: a kernel on the GPU accessed memory outside its own.
	ErrGPUFault = errors.New("gpu memory fault")
	// ErrGPUIllegalInstruction: the GPU does not have an instruction of a kernel.
	ErrGPUIllegalInstruction = errors.New("illegal gpu instruction")
	// ErrUnsupportedTarget: the program contains no code for this GPU.
	ErrUnsupportedTarget = errors.New("gpu target not supported by this build")
	// ErrModelInvalid: the model file is damaged, truncated, or of an unknown kind.
	ErrModelInvalid = errors.New("model cannot be loaded")
	// ErrLibraryMissing: the loader did not find a shared library or a symbol.
	ErrLibraryMissing = errors.New("shared library missing")
	// ErrPermission: the user may not open the GPU, or may not run the program.
	ErrPermission = errors.New("permission denied")
	// ErrNoDevice: the program was told to use a GPU and found none.
	ErrNoDevice = errors.New("llama-server does not find the gpu")
	// ErrBadArgument: the program rejected its command line.
	ErrBadArgument = errors.New("invalid argument")
	// ErrBadTemplate: the program cannot use the model's chat template, or the one of
	// an argument.
	ErrBadTemplate = errors.New("chat template cannot be used")
	// ErrListen: the program could not listen on its address.
	ErrListen = errors.New("cannot listen")
	// ErrStalled: requests ran and no token was produced.
	ErrStalled = errors.New("stalled")
	// ErrStartTimeout: the start showed no sign of progress.
	ErrStartTimeout = errors.New("start timed out")
	// ErrWrongPeer: another process answers on the child's address.
	ErrWrongPeer = errors.New("the peer is not the supervised process")
	// ErrCrashed: the process crashed or hung while it handled this request and no
	// other, or two processes were killed one after the other before they answered it.
	// The request is the likely cause and is not sent to another process.
	ErrCrashed = errors.New("llama-server crashed while handling this request")
	// ErrCrashLoop: the child failed too often in a row, see RestartPolicy.
	ErrCrashLoop = errors.New("crash loop")
	// ErrStopped: the child was stopped and accepts no more requests.
	ErrStopped = errors.New("llama-server is stopped")
	// ErrUnsupportedPlatform: supervision needs Linux.
	ErrUnsupportedPlatform = errors.New("supervising llama-server needs linux")
)

// IsPermanent reports whether a restart cannot help against err.
func IsPermanent(err error) bool {
	for _, kind := range []error{
		ErrModelInvalid, ErrBadTemplate, ErrMemoryLimit, ErrLibraryMissing, ErrPermission, ErrBadArgument, ErrNoDevice,
		ErrUnsupportedTarget, ErrUnsupportedPlatform, ErrInvalidSpec,
	} {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}

// ExitError describes a process that exited without a request.
type ExitError struct {
	// Code is the exit status, -1 if a signal ended the process.
	Code int
	// Signal is the signal that ended the process, 0 if none did. CoreDumped reports
	// whether the process left a core file.
	Signal     syscall.Signal
	CoreDumped bool
	// Pid was the id of the process.
	Pid int
	// State is the state in which the process exited.
	State State
	// Kind is one of the package's causes, nil if none was found. Line is the log
	// line that identified it.
	Kind error
	Line string
	// Remedy is a sentence for the person who has to act.
	Remedy string
	// Log contains the last lines of output, oldest first.
	Log []string
}

// IsSuspect reports whether a request that was in flight may have caused the exit that
// err reports: the process crashed, hung or ran out of memory. Otherwise somebody else
// killed it, or it was stopped.
func IsSuspect(err error) bool {
	var e *ExitError
	if errors.As(err, &e) {
		switch e.Signal {
		case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT:
			return errors.Is(err, ErrOutOfMemory)
		}
	}
	return !errors.Is(err, ErrStopped)
}

// Error returns what happened, the cause, the remedy and the last lines.
func (e *ExitError) Error() string {
	var b strings.Builder
	b.WriteString("llama-server ")
	switch {
	case e.Signal != 0:
		fmt.Fprintf(&b, "was killed by %s", signalName(e.Signal))
	default:
		fmt.Fprintf(&b, "exited with status %d", e.Code)
	}
	fmt.Fprintf(&b, " while %s", e.State)
	writeCause(&b, e.Kind, e.Line, e.Remedy, e.Log)
	return b.String()
}

// Unwrap returns the cause.
func (e *ExitError) Unwrap() error { return e.Kind }

// HangError describes a process that runs and makes no progress.
type HangError struct {
	// Kind is ErrStartTimeout or ErrStalled.
	Kind error
	// After is how long there was no progress.
	After time.Duration
	// Unanswered says that a request without a response caused it, and none whose
	// response had begun.
	Unanswered bool
	State      State
	Pid        int
	Remedy     string
	Log        []string
}

// Error returns what happened, the remedy and the last lines.
func (e *HangError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "llama-server made no progress for %s while %s", e.After.Round(time.Millisecond), e.State)
	writeCause(&b, e.Kind, "", e.Remedy, e.Log)
	return b.String()
}

// Unwrap returns the cause.
func (e *HangError) Unwrap() error { return e.Kind }

// errorLogLines is how many lines the text of an error contains. The error's Log
// has them all.
const errorLogLines = 8

func writeCause(b *strings.Builder, kind error, line, remedy string, log []string) {
	if kind != nil {
		fmt.Fprintf(b, ": %s", kind)
	}
	if line != "" {
		fmt.Fprintf(b, " (%s)", line)
	}
	if remedy != "" {
		fmt.Fprintf(b, "; %s", remedy)
	}
	if n := len(log); n > 0 {
		fmt.Fprintf(b, "; its last lines:\n\t%s", strings.Join(log[max(0, n-errorLogLines):], "\n\t"))
	}
}

func signalName(s syscall.Signal) string {
	names := map[syscall.Signal]string{
		syscall.SIGABRT: "SIGABRT", syscall.SIGSEGV: "SIGSEGV", syscall.SIGKILL: "SIGKILL",
		syscall.SIGTERM: "SIGTERM", syscall.SIGBUS: "SIGBUS", syscall.SIGILL: "SIGILL",
		syscall.SIGFPE: "SIGFPE", syscall.SIGINT: "SIGINT", syscall.SIGHUP: "SIGHUP", syscall.SIGPIPE: "SIGPIPE",
	}
	if n, ok := names[s]; ok {
		return n
	}
	return fmt.Sprintf("signal %d", int(s))
}

// logPattern matches a line of output that identifies a cause.
type logPattern struct {
	cause   error
	pattern *regexp.Regexp
	// source is the program or file that writes the line, to check new versions against.
	source string
	remedy string
}

const (
	remedyVRAM       = "use a smaller context, fewer slots or fewer GPU layers, or close other programs that use the GPU"
	remedyHostMem    = "close other programs, use a smaller model or context, or raise the memory limit"
	remedyHang       = "the GPU was reset: start again; if it happens again, update the kernel and the GPU firmware"
	remedyStall      = "the process was killed to free the GPU; if it happens again, update the kernel and the GPU firmware"
	remedyFault      = "this is a fault in a GPU kernel: try without flash attention, and report it with the lines above"
	remedyIllegal    = "the GPU does not have an instruction of the code that it was given: run without --override if it is set, verify the bundle with 'go-rocm verify', and report it with the lines above"
	remedyTarget     = "this build has no code for the GPU: use a build for its target, or try --override auto, which runs code for a related one"
	remedyModel      = "check the file against its published checksum and download it again; a new kind of model needs a newer llama.cpp"
	remedyMMProj     = "use the projector (mmproj) that was made for this model, and check its file against its published checksum"
	remedyLibrary    = "the bundle is incomplete or was changed: verify it with 'go-rocm verify' and install it again"
	remedyKFD        = "add the user to the group that owns /dev/kfd and /dev/dri/renderD* (usually render), then log in again"
	remedyDevice     = "run 'go-rocm doctor'; the lines above may show why the GPU code did not start"
	remedyArg        = "remove or correct the argument; 'llama-server --help' lists the arguments of this version"
	remedyAddress    = "choose another address, or stop the program that listens there"
	remedyStallCPU   = "the process neither computed nor answered and was killed; if it happens again, report it with the lines above"
	remedyTemplate   = "the lines above show why llama-server cannot use the chat template; use another one (--chat-template-file)"
	remedyLimit      = "the model's chat template may loop or grow without end: use a template that you trust (--chat-template-file), or a model from another source; if the model is as large as that, allow it with --overcommit"
	remedyGrowth     = "a request may have made the model's chat template grow without end: use a template that you trust (--chat-template-file), or a model from another source; if it was the cache of prompts, lower --cache-ram or the context"
	remedyUnanswered = "the model's chat template may loop without end for the messages of a request: use a template that you trust (--chat-template-file), or a model from another source"
	remedyAVX        = "the CPU lacks an instruction that this build uses: use a build with all CPU variants"
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
		s(ErrGPUIllegalInstruction, `HSA_STATUS_ERROR_ILLEGAL_INSTRUCTION`, "ROCR, HIP", remedyIllegal),
		s(ErrGPUHang, `ErrorDeviceLost|VK_ERROR_DEVICE_LOST|ggml_vulkan: .*[Dd]evice lost`, "ggml-vulkan.cpp", remedyHang),
		s(ErrUnsupportedTarget, `rocBLAS error: Cannot read .*TensileLibrary`, "rocBLAS", remedyTarget),
		s(ErrUnsupportedTarget, `hipErrorNoBinaryForGpu|no kernel image is available|invalid device function|HSA_STATUS_ERROR_INVALID_ISA`, "HIP, ROCR", remedyTarget),
		s(ErrPermission, `Unable to open /dev/kfd.*(Permission denied|Operation not permitted)`, "ROCm thunk", remedyKFD),
		s(ErrOutOfMemory, `cudaMalloc failed: out of memory|hipMalloc failed: out of memory|ROCm error: out of memory|CUDA error: out of memory`, "ggml-cuda.cu", remedyVRAM),
		s(ErrHostMemory, `unable to allocate (CPU\w*|AMX|\w+_Host) buffer|failed to allocate (CPU\w*|AMX|\w+_Host) buffer of size|failed to allocate buffer of size \d`, "llama-model.cpp, ggml-alloc.c, ggml-backend.cpp", remedyHostMem),
		s(ErrOutOfMemory, `ErrorOutOfDeviceMemory|ggml_vulkan: Device memory allocation of size \d+ failed`, "ggml-vulkan.cpp", remedyVRAM),
		s(ErrOutOfMemory, `unable to allocate \S+ buffer|failed to allocate \S+ buffer of size|failed to allocate buffer for|failed to allocate compute (pp |tg )?buffers|HSA_STATUS_ERROR_OUT_OF_RESOURCES`, "llama-model.cpp, ggml-alloc.c, llama-kv-cache.cpp", remedyVRAM),
		s(ErrHostMemory, `std::bad_alloc|failed to allocate +[\d.]+ MB|Cannot allocate memory`, "libstdc++, ggml.c, libc", remedyHostMem),
		s(ErrLibraryMissing, `error while loading shared libraries: `, "glibc's loader", remedyLibrary),
		s(ErrLibraryMissing, "symbol lookup error: |version `[^']+' not found", "glibc's loader", remedyLibrary),
		s(ErrNoDevice, `invalid device: (ROCm|Vulkan)\d+`, "common/arg.cpp", remedyDevice),
		s(ErrBadTemplate, `error: the supplied chat template is not supported`, "common/arg.cpp", remedyTemplate),
		s(ErrBadTemplate, `chat template parsing error: `, "server-context.cpp", remedyTemplate),
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
	return slices.Contains([]error{ErrModelInvalid, ErrBadTemplate, ErrBadArgument, ErrListen, ErrNoDevice, ErrPermission, ErrLibraryMissing}, kind)
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
