package supervise

import (
	"path/filepath"
	"slices"
	"strings"
)

// markerName is the variable by which a child and what it started are known.
const markerName = "GO_ROCM_CHILD"

// scrubbedPrefixes are the beginnings of variables that change what
// llama-server, ggml, the dynamic loader or the C library do, or that belong to
// our own service manager and not to a child of ours. LLAMA_ARG_* stand for
// command line options (common/arg.cpp), GGML_BACKEND_PATH loads a module
// (ggml-backend-reg.cpp), AIP_* move the server to another port
// (tools/server/server-http.cpp), MTMD_* choose a device for images.
// HSA_OVERRIDE_GFX_VERSION, and the same with the number of a node behind it,
// which goes before it, makes the ROCm thunk take a GPU for another target
// (libhsakmt/src/topology.c): whoever chose the code for the GPU sets it.
func scrubbedPrefixes() []string {
	return []string{"LLAMA_", "GGML_", "LD_", "AIP_", "MTMD_", "MALLOC_", "LISTEN_", "WATCHDOG_", "HSA_OVERRIDE_GFX_VERSION"}
}

// scrubbedNames are single variables of the same kinds, and secrets that the
// child has no use for.
func scrubbedNames() []string {
	return []string{
		"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY",
		"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN",
		"GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH", "GETCONF_DIR", "HOSTALIASES", "RES_OPTIONS", "RESOLV_HOST_CONF",
		"HSA_TOOLS_LIB", "ROCBLAS_TENSILE_LIBPATH", "NOTIFY_SOCKET", "INVOCATION_ID", "JOURNAL_STREAM",
		markerName,
	}
}

// rocmPath names a folder of ROCm, in which its libraries look for parts of
// theirs. The child has another working folder than its caller, so that a
// relative path would mean another place to it.
const rocmPath = "ROCM_PATH"

// withoutConfigFiles gives the variables that keep llama-server from what the
// machine's configuration files of llama.cpp would change (v0.5.0:
// common_params_apply_system_config in common/arg.cpp). The user's is looked for in
// a folder that is not there. The system's, /etc/llama.cpp/config.ini, is read in
// any case, and variables go before it: those undo what would keep us from
// talking to the server, and what lets its clients run tools.
func withoutConfigFiles(private string) []string {
	return []string{
		"XDG_CONFIG_HOME=" + filepath.Join(private, "no-config"),
		"LLAMA_ARG_API_PREFIX=", "LLAMA_ARG_SSL_KEY_FILE=", "LLAMA_ARG_SSL_CERT_FILE=",
		"LLAMA_ARG_AGENT=0", "LLAMA_ARG_MCP_SERVERS_CONFIG=", "LLAMA_ARG_MCP_SERVERS_JSON=",
	}
}

// scrub takes what must not reach the child out of env, adds extra, and gives
// the names it took out, sorted. A name that stands twice keeps its last value.
func scrub(env, extra []string) (out, dropped []string) {
	values := map[string]string{}
	var order []string
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
		name, value, _ := strings.Cut(kv, "=")
		if isScrubbed(name) || (name == rocmPath && !filepath.IsAbs(value)) {
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

func isScrubbed(name string) bool {
	upper := strings.ToUpper(name) // proxies are read in both cases
	if slices.Contains(scrubbedNames(), upper) {
		return true
	}
	return slices.ContainsFunc(scrubbedPrefixes(), func(p string) bool { return strings.HasPrefix(upper, p) })
}
