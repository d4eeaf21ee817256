//go:build install

package install_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// dropIn replaces one line of the unit's sandbox: Mesa's lavapipe compiles shaders to machine code of
// the CPU. Drivers for GPUs do not.
const dropIn = "[Service]\nMemoryDenyWriteExecute=no\n"

// TestInstallServiceOnVulkan runs the service of the shipped packages in the sandbox of its unit, with
// one line of it changed, on a machine whose only Vulkan driver is Mesa's lavapipe of Debian 13. All
// layers are on the Vulkan device.
func TestInstallServiceOnVulkan(t *testing.T) {
	list := packages(t)
	gguf := model(t.Context(), t)
	b := bootedWith(t, "trixie", "mesa-vulkan-drivers")
	b.sh("apt-get install -y " + b.copyIn(list))
	if err := b.Copy(t.Context(), gguf, "/var/lib/go-rocm/models/model.gguf"); err != nil {
		t.Fatal(err)
	}
	b.sh(`sed -i -e 's|^model = .*|model = "/var/lib/go-rocm/models/model.gguf"|' -e 's|^#listen = .*|listen = "127.0.0.1:11435"|' \
	-e 's|^#backend = .*|backend = "vulkan"|' -e 's|^#context = .*|context = 1024|' /etc/go-rocm/config.toml`)
	// A software driver is used only where the environment names its device.
	b.sh("systemctl set-environment GGML_VK_VISIBLE_DEVICES=0")

	// The unit's own sandbox forbids what lavapipe does, which crashes then.
	b.sh("! systemctl start go-rocm && systemctl stop go-rocm")
	if log := b.sh("journalctl --no-pager -o cat -u go-rocm"); !strings.Contains(log, "using llvmpipe") || !strings.Contains(log, "llama-server was killed by SIG") {
		t.Errorf("without the drop-in the journal has:\n%s", log)
	}

	before := b.sandbox()
	if err := b.Write(t.Context(), "/etc/systemd/system/go-rocm.service.d/lavapipe.conf", dropIn); err != nil {
		t.Fatal(err)
	}
	b.sh("systemctl daemon-reload")
	if got, want := b.sandbox(), strings.Replace(before, "MemoryDenyWriteExecute=yes\n", "MemoryDenyWriteExecute=no\n", 1); got != want || got == before {
		t.Fatalf("the drop-in changes the sandbox\n%s\nto\n%s", before, got)
	}
	b.sh("systemctl start go-rocm")
	var answer string
	b.eventually("the service answers", func() bool {
		var err error
		answer, err = b.ask()
		return err == nil
	})
	if !strings.Contains(answer, "Paris") {
		t.Errorf("asked %q, got %q", question, answer)
	}
	log := b.sh("journalctl --no-pager -o cat -u go-rocm")
	if !strings.Contains(log, "the backend is Vulkan, as the options ask") || !regexp.MustCompile(`all \d+ layers fit on the GPU`).MatchString(log) {
		t.Errorf("the layers are not on the Vulkan device:\n%s", log)
	}
	children := strings.Fields(b.sh("ps -o pid= --ppid " + b.property("MainPID")))
	if len(children) != 1 {
		t.Fatalf("the service has the children %q", children)
	}
	if maps := b.sh(fmt.Sprintf("cat /proc/%s/maps", children[0])); !strings.Contains(maps, "/libvulkan_lvp.so") || !strings.Contains(maps, "/usr/lib/go-rocm/llama/libggml-vulkan.so") {
		t.Errorf("llama-server does not use lavapipe:\n%s", maps)
	}
}

// sandbox returns the properties of the service that its unit sets, without its commands, as systemd uses them.
func (b *box) sandbox() string {
	b.t.Helper()
	return b.sh(`keys=$(sed -n '/^\[Service\]/,/^\[Install\]/s/^\([A-Z][A-Za-z]*\)=.*/\1/p' /usr/lib/systemd/system/go-rocm.service | grep -v -e ^Exec -e ^WantedBy | sort -u | paste -sd, -)
systemctl show -p "$keys" go-rocm.service`)
}
