package supervise

import (
	"path/filepath"
	"slices"
	"strings"
)

// markerName is the variable that marks a child and its descendants.
const markerName = "GO_ROCM_CHILD"

// EnvInherit is the variable with further names, separated by commas, of variables
// that the child inherits. It cannot name one that the supervisor removes.
const EnvInherit = "GOROCM_INHERIT_ENV"

// inheritedNames returns the variables that the child inherits: what programs and
// the C library need, and settings of the GPU's libraries. A child inherits nothing
// else, so that it never sees the keys and passphrases of other programs.
func inheritedNames() []string {
	return []string{
		"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TZ", "LANG", "LANGUAGE",
		"XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_DATA_DIRS", "XDG_CONFIG_DIRS",
		"CUDA_VISIBLE_DEVICES", "HIP_PATH", "DRI_PRIME",
		"VK_ICD_FILENAMES", "VK_DRIVER_FILES", "VK_ADD_DRIVER_FILES",
	}
}

// inheritedPrefixes returns the prefixes of variables that the child inherits:
// the locale, and settings of ROCm, Vulkan, Mesa and OpenMP.
func inheritedPrefixes() []string {
	return []string{
		"LC_", "HSA_", "HIP_", "ROCR_", "ROCM_", "ROCBLAS_", "HIPBLASLT_", "TENSILE_", "AMD_", "AMDGPU_", "GPU_",
		"VK_LOADER_", "MESA_", "RADV_", "OMP_", "GOMP_",
	}
}

// removedPrefixes returns the prefixes of variables that the child never inherits,
// even if EnvInherit names them. They change what llama-server, ggml, the dynamic
// loader or the C library do, or belong to this process's own service manager.
// LLAMA_ARG_* stand for command-line options (common/arg.cpp),
// GGML_BACKEND_PATH loads a module (ggml-backend-reg.cpp), AIP_* move the server to
// another port (tools/server/server-http.cpp), MTMD_* choose a device for images.
// HSA_OVERRIDE_GFX_VERSION makes the ROCm thunk report a GPU as another target; with
// the number of a node appended it does so for that node and takes precedence
// (libhsakmt/src/topology.c). Whoever chooses the code for the GPU sets it.
func removedPrefixes() []string {
	return []string{"LLAMA_", "GGML_", "LD_", "AIP_", "MTMD_", "MALLOC_", "LISTEN_", "WATCHDOG_", "HSA_OVERRIDE_GFX_VERSION", "OMP_TOOL"}
}

// removedNames returns single variables of the same kinds, some of which load code,
// and secrets that the child does not need.
func removedNames() []string {
	return []string{
		"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
		"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GOROCM_API_KEY",
		"GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH", "GETCONF_DIR", "HOSTALIASES", "RES_OPTIONS", "RESOLV_HOST_CONF",
		"HSA_TOOLS_LIB", "ROCBLAS_TENSILE_LIBPATH", "HIPBLASLT_TENSILE_LIBPATH", "HIPBLASLT_EXT_OP_LIBRARY_PATH",
		"NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM",
		markerName,
	}
}

// rocmPath names a directory of ROCm, in which its libraries look for their parts.
// The child's working directory differs from its parent's, so a relative path would
// mean another directory.
const rocmPath = "ROCM_PATH"

// noBacktrace stops ggml from running gdb at a failed assertion (ggml_print_backtrace
// in ggml/src/ggml.c, ggml_uncaught_exception in ggml.cpp): on a bundle without
// symbols it prints question marks, which push the text of the assertion out of the
// last lines.
const noBacktrace = "GGML_NO_BACKTRACE=1"

// configFileEnv returns the variables that protect llama-server from the machine's
// configuration files of llama.cpp (v0.5.0: common_params_apply_system_config in
// common/arg.cpp). The user's file is searched in a directory that does not exist.
// The system's, /etc/llama.cpp/config.ini, is always read, and variables take
// precedence over it: these undo the settings that would cut the supervisor off from
// the server, and those that let its clients run tools.
func configFileEnv(private string) []string {
	return []string{
		"XDG_CONFIG_HOME=" + filepath.Join(private, "no-config"),
		"LLAMA_ARG_API_PREFIX=", "LLAMA_ARG_SSL_KEY_FILE=", "LLAMA_ARG_SSL_CERT_FILE=",
		"LLAMA_ARG_AGENT=0", "LLAMA_ARG_MCP_SERVERS_CONFIG=", "LLAMA_ARG_MCP_SERVERS_JSON=",
	}
}

// childEnv returns the entries of env that the child inherits, followed by extra, and
// the sorted names of the other entries. The last value of a name wins.
func childEnv(env, extra []string) (out, dropped []string) {
	values := map[string]string{}
	var order, further []string
	put := func(kv string) {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return
		}
		if _, seen := values[name]; !seen {
			order = append(order, name)
		}
		values[name] = value
	}
	for _, kv := range env {
		if names, ok := strings.CutPrefix(kv, EnvInherit+"="); ok {
			further = strings.FieldsFunc(names, func(r rune) bool { return r == ',' || r == ' ' })
		}
	}
	for _, kv := range env {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			continue
		}
		if !isInherited(name, further) || (name == rocmPath && !filepath.IsAbs(value)) {
			dropped = append(dropped, name)
			continue
		}
		put(kv)
	}
	for _, kv := range extra {
		put(kv)
	}
	out = make([]string, 0, len(order))
	for _, name := range order {
		out = append(out, name+"="+values[name])
	}
	slices.Sort(dropped)
	return out, slices.Compact(dropped)
}

// isInherited reports whether the child inherits a variable. further are the names
// in EnvInherit.
func isInherited(name string, further []string) bool {
	hasPrefix := func(p string) bool { return strings.HasPrefix(name, p) }
	if isRemoved(name) {
		return false
	}
	return slices.Contains(inheritedNames(), name) || slices.ContainsFunc(inheritedPrefixes(), hasPrefix) || slices.Contains(further, name)
}

func isRemoved(name string) bool {
	upper := strings.ToUpper(name) // proxy variables exist in both cases
	if slices.Contains(removedNames(), upper) {
		return true
	}
	return slices.ContainsFunc(removedPrefixes(), func(p string) bool { return strings.HasPrefix(upper, p) })
}
