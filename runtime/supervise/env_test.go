package supervise

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestChildEnv(t *testing.T) {
	in := []string{
		"PATH=/bin", "LLAMA_ARG_PORT=1", "LLAMA_API_KEY=stolen", "GGML_BACKEND_PATH=/x.so", "LD_PRELOAD=/y.so",
		"http_proxy=http://p", "HTTPS_PROXY=http://p", "no_proxy=*", "AIP_MODE=PREDICTION", "HF_TOKEN=secret",
		"HIP_VISIBLE_DEVICES=1", "HOME=/h", "HOME=/h2", "GO_ROCM_CHILD=other", "NOTIFY_SOCKET=/n", "ODD", "=x",
		"ROCM_PATH=opt/rocm", "HSA_OVERRIDE_GFX_VERSION=10.3.0", "HSA_OVERRIDE_GFX_VERSION_1=10.3.0",
	}
	got, dropped := childEnv(in, []string{"LLAMA_API_KEY=ours", "HIP_VISIBLE_DEVICES=0", "HSA_OVERRIDE_GFX_VERSION=11.0.0", "EMPTY="})
	want := []string{"PATH=/bin", "HIP_VISIBLE_DEVICES=0", "HOME=/h2", "LLAMA_API_KEY=ours", "HSA_OVERRIDE_GFX_VERSION=11.0.0", "EMPTY="}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	wantDropped := []string{
		"AIP_MODE", "GGML_BACKEND_PATH", "GO_ROCM_CHILD", "HF_TOKEN", "HSA_OVERRIDE_GFX_VERSION", "HSA_OVERRIDE_GFX_VERSION_1", "HTTPS_PROXY", "LD_PRELOAD",
		"LLAMA_API_KEY", "LLAMA_ARG_PORT", "NOTIFY_SOCKET", "ROCM_PATH", "http_proxy", "no_proxy",
	}
	if d := cmp.Diff(wantDropped, dropped); d != "" {
		t.Error(d)
	}
}

// A child sees no variable that it has no use for: not the keys of other programs, not
// the passphrases of a release.
func TestChildEnvIsAnAllowList(t *testing.T) {
	in := []string{
		"GOROCM_API_KEY=secret", "GOROCM_APT_PASSPHRASE=secret", "OPENAI_API_KEY=secret", "AWS_SECRET_ACCESS_KEY=secret",
		"SSH_AUTH_SOCK=/s", "PYTHONPATH=/p", "VK_INSTANCE_LAYERS=x", "OMP_TOOL_LIBRARIES=/x.so", "PATHS=/x", "LCD=1",
		"LC_ALL=C", "OMP_NUM_THREADS=2", "HSA_ENABLE_SDMA=0", "MINE=1", "YOURS=2", EnvInherit + "=MINE, LD_PRELOAD,GOROCM_API_KEY", "LD_PRELOAD=/x.so",
	}
	got, dropped := childEnv(in, nil)
	if d := cmp.Diff([]string{"LC_ALL=C", "OMP_NUM_THREADS=2", "HSA_ENABLE_SDMA=0", "MINE=1"}, got); d != "" {
		t.Error(d)
	}
	if len(dropped) != len(in)-len(got) {
		t.Errorf("%d variables, %d inherited, dropped %q", len(in), len(got), dropped)
	}
}

func TestChildEnvKeepsAbsoluteROCmPath(t *testing.T) {
	got, dropped := childEnv([]string{"ROCM_PATH=/opt/rocm-6.4.1"}, nil)
	if d := cmp.Diff([]string{"ROCM_PATH=/opt/rocm-6.4.1"}, got); d != "" || len(dropped) > 0 {
		t.Errorf("%s, dropped %q", d, dropped)
	}
}

func TestConfigFilesAreIgnored(t *testing.T) {
	got, _ := childEnv([]string{"XDG_CONFIG_HOME=/home/u/.config", "LLAMA_ARG_AGENT=1", "LLAMA_ARG_API_PREFIX=/x"}, configFileEnv("/run/ours"))
	want := []string{
		"XDG_CONFIG_HOME=/run/ours/no-config", "LLAMA_ARG_API_PREFIX=", "LLAMA_ARG_SSL_KEY_FILE=", "LLAMA_ARG_SSL_CERT_FILE=",
		"LLAMA_ARG_AGENT=0", "LLAMA_ARG_MCP_SERVERS_CONFIG=", "LLAMA_ARG_MCP_SERVERS_JSON=",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}
