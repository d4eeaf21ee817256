package supervise

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// The lines are those that the named programs write; docs/faults.md has the table.
func TestDiagnose(t *testing.T) {
	tests := []struct {
		name string
		in   ExitError
		oom  bool
		want error
	}{
		{"gpu hang", ExitError{Signal: syscall.SIGABRT, Log: []string{"HW Exception by GPU node-1 (Agent handle: 0x55dc6e221990) reason :GPU Hang"}}, false, ErrGPUHang},
		{"gpu fault", ExitError{Signal: syscall.SIGABRT, Log: []string{"Memory access fault by GPU node-1 (Agent handle: 0x7f) on address 0x1000. Reason: Page not present or supervisor privilege."}}, false, ErrGPUFault},
		{"illegal instruction", ExitError{Signal: syscall.SIGABRT, Log: []string{":0:rocdevice.cpp            :3006: 81237 us: [pid:7 tid:0x7f] Callback: Queue 0x7f aborting with error : HSA_STATUS_ERROR_ILLEGAL_INSTRUCTION: The agent attempted to execute an illegal shader instruction. code: 0x2a"}}, false, ErrGPUIllegalInstruction},
		{"tensile", ExitError{Signal: syscall.SIGABRT, Log: []string{"rocBLAS error: Cannot read /opt/rocm/lib/rocblas/library/TensileLibrary.dat: Illegal seek for GPU arch : gfx1103"}}, false, ErrUnsupportedTarget},
		{"no code object", ExitError{Signal: syscall.SIGABRT, Log: []string{"ROCm error: invalid device function", "  current device: 0, in function ggml_cuda_compute_forward"}}, false, ErrUnsupportedTarget},
		{"kfd", ExitError{Code: 1, Log: []string{"Unable to open /dev/kfd read-write: Permission denied"}}, false, ErrPermission},
		{"no device", ExitError{Code: 1, Log: []string{
			"ggml_cuda_init: failed to initialize ROCm: no ROCm-capable device is detected",
			`error while handling argument "--device": invalid device: ROCm0`,
		}}, false, ErrNoDevice},
		{"vram", ExitError{Code: 1, Log: []string{
			"ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4096.00 MiB on device 0: cudaMalloc failed: out of memory",
			"llama_model_load: error loading model: unable to allocate ROCm0 buffer",
			"srv    load_model: failed to load model, '/m.gguf'",
		}}, false, ErrOutOfMemory},
		{"kv cache", ExitError{Code: 1, Log: []string{"llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"}}, false, ErrOutOfMemory},
		{"host oom", ExitError{Signal: syscall.SIGKILL}, true, ErrHostMemory},
		{"bad alloc", ExitError{Signal: syscall.SIGABRT, Log: []string{"terminate called after throwing an instance of 'std::bad_alloc'", "  what():  std::bad_alloc"}}, false, ErrHostMemory},
		{"buffer of the host", ExitError{Code: 1, Log: []string{
			"ggml_aligned_malloc: insufficient memory (attempted to allocate 4096.00 MB)",
			"ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4294967296",
			"alloc_tensor_range: failed to allocate CPU_REPACK buffer of size 4294967296",
			"llama_model_load: error loading model: unable to allocate CPU_REPACK buffer",
			"srv    load_model: failed to load model, '/m.gguf'",
		}}, false, ErrHostMemory},
		{"pinned buffer of the host", ExitError{Code: 1, Log: []string{"llama_model_load: error loading model: unable to allocate ROCm_Host buffer"}}, false, ErrHostMemory},
		{"kv cache on the host", ExitError{Code: 1, Log: []string{
			"ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 4294967296",
			"llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache",
		}}, false, ErrHostMemory},
		{"no address space", ExitError{Code: 1, Log: []string{"llama_model_load: error loading model: mmap failed: Cannot allocate memory"}}, false, ErrHostMemory},
		{"locked memory, then another failure", ExitError{Code: 1, Log: []string{
			"warning: failed to mlock 1073741824-byte buffer (after previously locking 0 bytes): Cannot allocate memory",
			"Try increasing RLIMIT_MEMLOCK ('ulimit -l' as root).",
			"mtmd_init_from_file: error: mismatch between text model (n_embd = 64) and mmproj (n_embd = 2560)",
		}}, false, ErrModelInvalid},
		{"locked memory, then a crash", ExitError{Signal: syscall.SIGSEGV, Log: []string{
			"0.00.120.004 W warning: failed to mlock 1073741824-byte buffer (after previously locking 0 bytes): Cannot allocate memory",
		}}, false, nil},
		{"no room for saved prompts, then a crash", ExitError{Signal: syscall.SIGSEGV, Log: []string{
			"0.09.120.004 E srv         alloc: failed to allocate memory for prompt cache state: std::bad_alloc",
		}}, false, nil},
		{"library", ExitError{Code: 127, Log: []string{"llama-server: error while loading shared libraries: libllama.so.0: cannot open shared object file: No such file or directory"}}, false, ErrLibraryMissing},
		{"glibc", ExitError{Code: 1, Log: []string{"./llama-server: /lib/libc.so.6: version `GLIBC_2.43' not found (required by ./llama-server)"}}, false, ErrLibraryMissing},
		{"argument", ExitError{Code: 1, Log: []string{"error: invalid argument: --no-such-flag"}}, false, ErrBadArgument},
		{"bind", ExitError{Code: 1, Log: []string{"E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 80"}}, false, ErrListen},
		{"magic", ExitError{Code: 1, Log: []string{"gguf_init_from_file_ptr: invalid magic characters: 'abcd', expected 'GGUF'", "srv    load_model: failed to load model, 'x'"}}, false, ErrModelInvalid},
		{"architecture", ExitError{Code: 1, Log: []string{"llama_model_load: error loading model: error loading model architecture: unknown model architecture: 'new'"}}, false, ErrModelInvalid},
		{"projector of another model", ExitError{Code: 1, Log: []string{
			"mtmd_init_from_file: error: mismatch between text model (n_embd = 64) and mmproj (n_embd = 2560)",
			"srv    load_model: failed to load multimodal model, 'mmproj.gguf'",
		}}, false, ErrModelInvalid},
		{"damaged projector", ExitError{Code: 1, Log: []string{
			"clip_init: failed to load model 'mmproj.gguf': load_tensors: unable to find tensor v.blk.0.ffn_up.weight",
			"mtmd_init_from_file: error: Failed to load CLIP model from mmproj.gguf",
			"srv    load_model: failed to load multimodal model, 'mmproj.gguf'",
		}}, false, ErrModelInvalid},
		{"unknown", ExitError{Code: 3, Log: []string{"something else"}}, false, nil},
		{"killed by a person", ExitError{Signal: syscall.SIGKILL}, false, nil},
		{"segv", ExitError{Signal: syscall.SIGSEGV}, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := tt.in
			diagnose(&e, tt.oom)
			if !errors.Is(e.Kind, tt.want) || (tt.want == nil && e.Kind != nil) {
				t.Fatalf("got %v, want %v", e.Kind, tt.want)
			}
			if errors.Is(e.Kind, ErrHostMemory) != errors.Is(tt.want, ErrHostMemory) {
				t.Errorf("got %v, want %v: the remedy depends on which memory it is", e.Kind, tt.want)
			}
			if tt.want != nil && (e.Remedy == "" || e.Line == "") {
				t.Errorf("remedy %q, line %q: both must be set", e.Remedy, e.Line)
			}
			if tt.want != nil && !errors.Is(&e, tt.want) {
				t.Errorf("%v does not unwrap to %v", &e, tt.want)
			}
			if errors.Is(tt.want, ErrHostMemory) && !errors.Is(&e, ErrOutOfMemory) {
				t.Errorf("%v is not an ErrOutOfMemory", &e)
			}
			if !strings.Contains(e.Error(), e.Remedy) {
				t.Errorf("the text lacks the remedy: %s", e.Error())
			}
		})
	}
}

// A cause that only ends a start does not explain a later exit, even if its line is
// still among the last ones. Otherwise a server that went on after such a line, for
// example without a GPU, would not be restarted.
func TestDiagnoseWhileServing(t *testing.T) {
	const crash, noGPU = "terminate called without an active exception", "Unable to open /dev/kfd read-write: Permission denied"
	for name, tt := range map[string]struct {
		in      ExitError
		serving error
		loading error
	}{
		"model":         {ExitError{Signal: syscall.SIGSEGV, Log: []string{"llama_model_load: error loading model: x", crash}}, nil, ErrModelInvalid},
		"projector":     {ExitError{Signal: syscall.SIGSEGV, Log: []string{"clip_init: failed to load model 'x'", crash}}, nil, ErrModelInvalid},
		"argument":      {ExitError{Signal: syscall.SIGSEGV, Log: []string{"error: invalid argument: --x", crash}}, nil, ErrBadArgument},
		"address":       {ExitError{Signal: syscall.SIGSEGV, Log: []string{"E srv start: couldn't bind HTTP server socket", crash}}, nil, ErrListen},
		"device":        {ExitError{Signal: syscall.SIGSEGV, Log: []string{"invalid device: ROCm0", crash}}, nil, ErrNoDevice},
		"permission":    {ExitError{Signal: syscall.SIGSEGV, Log: []string{noGPU, crash}}, nil, ErrPermission},
		"library":       {ExitError{Signal: syscall.SIGSEGV, Log: []string{"x.so: version `GLIBC_2.43' not found", crash}}, nil, ErrLibraryMissing},
		"lazy symbol":   {ExitError{Code: 127, Log: []string{"llama-server: symbol lookup error: libggml-hip.so: undefined symbol: x"}}, ErrLibraryMissing, ErrLibraryMissing},
		"status 127":    {ExitError{Code: 127, Log: []string{crash}}, ErrLibraryMissing, ErrLibraryMissing},
		"hang":          {ExitError{Signal: syscall.SIGABRT, Log: []string{noGPU, "HW Exception by GPU node-1 (Agent handle: 0x1) reason :GPU Hang"}}, ErrGPUHang, ErrGPUHang},
		"memory":        {ExitError{Signal: syscall.SIGABRT, Log: []string{"failed to load model, 'x'", "ROCm error: out of memory"}}, ErrOutOfMemory, ErrOutOfMemory},
		"target":        {ExitError{Signal: syscall.SIGABRT, Log: []string{"ROCm error: invalid device function"}}, ErrUnsupportedTarget, ErrUnsupportedTarget},
		"host's memory": {ExitError{Signal: syscall.SIGABRT, Log: []string{noGPU, "  what():  std::bad_alloc"}}, ErrHostMemory, ErrPermission},
	} {
		for while, want := range map[State]error{Starting: tt.loading, Loading: tt.loading, Ready: tt.serving, Stalled: tt.serving, Stopping: tt.serving} {
			e := tt.in
			e.State = while
			diagnose(&e, false)
			if e.Kind != want { //nolint:errorlint // the very same
				t.Errorf("%s while %s: got %v, want %v", name, while, e.Kind, want)
			}
		}
	}
}
