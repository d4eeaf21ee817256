//go:build install

package install_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/testing/install"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// booted is a machine of Debian 12 with systemd as its first process.
func booted(t *testing.T) *box { return bootedWith(t, "bookworm") }

// bootedWith is a machine with systemd as its first process and with further packages.
func bootedWith(t *testing.T, suite string, packages ...string) *box {
	t.Helper()
	c, err := engine(t).Boot(t.Context(), install.Machine{Suite: suite, Include: append([]string{"systemd", "systemd-sysv", "dbus", "procps"}, packages...)})
	if err != nil {
		t.Fatal(err)
	}
	b := adopt(t, c)
	b.eventually("systemd is up", func() bool {
		state, _ := b.Run(t.Context(), "", "systemctl", "is-system-running")
		return strings.HasPrefix(state, "running") || strings.HasPrefix(state, "degraded")
	})
	return b
}

// eventually waits for a condition that another process makes true.
func (b *box) eventually(what string, happened func() bool) {
	b.t.Helper()
	if poll.Holds(happened) {
		return
	}
	b.t.Fatalf("this did not happen: %s; the journal ends:\n%s", what,
		b.sh("journalctl --no-pager -n 60 2>&1 || true; systemctl status --no-pager go-rocm 2>&1 || true"))
}

// post sends a request to the service over the container's loopback interface. It uses
// bash for the connection, so that nothing has to be installed.
func (b *box) post(path, body string) (string, error) {
	request := fmt.Sprintf("POST %s HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	if err := b.Write(b.t.Context(), "/srv/request", request); err != nil {
		b.t.Fatal(err)
	}
	return b.Run(b.t.Context(), "", "bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/11435 && cat /srv/request >&3 && timeout 60 cat <&3")
}

// ask asks a question through the OpenAI-compatible API.
func (b *box) ask() (string, error) {
	out, err := b.post("/v1/chat/completions", `{"model":"any","temperature":0,"max_tokens":24,"messages":[{"role":"user","content":"`+question+`"}]}`)
	if err != nil {
		return "", err
	}
	_, body, ok := strings.Cut(out, "\r\n\r\n")
	if !ok || !strings.Contains(out, " 200 ") {
		return "", fmt.Errorf("answer: %q", out)
	}
	var reply struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal([]byte(body), &reply); err != nil || len(reply.Choices) != 1 {
		return "", fmt.Errorf("answer: %w: %q", err, body)
	}
	return reply.Choices[0].Message.Content, nil
}

func (b *box) property(name string) string {
	b.t.Helper()
	return strings.TrimSpace(b.sh("systemctl show --value -p " + name + " go-rocm.service"))
}

// waitForAnswer waits until the service answers correctly.
func (b *box) waitForAnswer() {
	b.t.Helper()
	var answer string
	var err error
	b.eventually("the service answers", func() bool {
		answer, err = b.ask()
		return err == nil
	})
	if !strings.Contains(answer, "Paris") {
		b.t.Errorf("asked %q, got %q", question, answer)
	}
}

// TestInstallService starts, reloads, restarts and stops the service under systemd, in the
// sandbox of its unit.
func TestInstallService(t *testing.T) {
	list := small(t)
	gguf := model(t.Context(), t)
	b := booted(t)
	debs := b.copyIn(list)
	b.sh("apt-get install -y " + debs)

	if got := b.property("UnitFileState"); got != "disabled" {
		t.Errorf("after the installation the unit is %q, not disabled", got)
	}
	b.sh("! systemctl start go-rocm")
	if log := b.sh("journalctl --no-pager -u go-rocm"); !strings.Contains(log, "/etc/go-rocm/config.toml:") || !strings.Contains(log, "model is empty: set it") {
		t.Errorf("without a model the journal does not say what to do:\n%s", log)
	}
	b.sh("systemctl stop go-rocm")

	if err := b.Copy(t.Context(), gguf, "/var/lib/go-rocm/models/model.gguf"); err != nil {
		t.Fatal(err)
	}
	b.sh(`sed -i -e 's|^model = .*|model = "/var/lib/go-rocm/models/model.gguf"|' -e 's|^#listen = .*|listen = "127.0.0.1:11435"|' /etc/go-rocm/config.toml`)
	b.as("go-rocm", "go-rocm config check")
	b.sh("systemctl enable --now go-rocm")
	b.waitForAnswer()

	pid := b.property("MainPID")
	if got := strings.Fields(b.sh("ps -o user= --ppid " + pid + " -p " + pid)); len(got) < 2 || strings.Join(got, "") != strings.Repeat("go-rocm", len(got)) {
		t.Errorf("the service and its child run as %q", got)
	}
	checkExposure(t, b)
	checkReload(t, b)
	checkDrain(t, b)
	checkSeveralModels(t, b)

	// The shipped bundle, in the same sandbox, opens the HIP module too. It replaces the
	// other one while the command is upgraded, which causes one restart.
	starts := b.starts()
	b.restartedBy("apt-get install -y --reinstall " + b.copyIn(packages(t)))
	if got := b.starts(); got != starts+1 {
		t.Errorf("with command and bundle renewed the service was started %d times", got-starts)
	}
	// A changed bundle alone restarts the service, too.
	b.restartedBy("apt-get install -y " + b.copyIn(small(t)[1:]))

	b.sh("apt-get remove -y 'go-rocm*'")
	if left := b.sh("ps -e -o user=,args= | grep '^go-rocm' || true"); left != "" {
		t.Errorf("after the removal there still runs:\n%s", left)
	}
	b.sh("apt-get install -y " + debs)
	if got := b.property("UnitFileState"); got != "enabled" {
		t.Errorf("after removal and installation the unit is %q; what the administrator chose is lost", got)
	}
	b.sh("apt-get purge -y 'go-rocm*'")
	if left := b.sh("find /etc/systemd /var/lib/systemd /usr/lib/systemd -name '*go-rocm*'; systemctl list-unit-files --no-legend 'go-rocm*' || true"); left != "" {
		t.Errorf("purge leaves:\n%s", left)
	}
}

// starts returns how often systemd has started the service.
func (b *box) starts() int {
	b.t.Helper()
	return strings.Count(b.sh("journalctl --no-pager -o cat -u go-rocm"), "Started go-rocm.service")
}

// restartedBy runs a command after which a new process of the service answers.
func (b *box) restartedBy(command string) {
	b.t.Helper()
	before := b.property("MainPID")
	b.sh(command)
	b.eventually("the service was restarted", func() bool {
		now := b.property("MainPID")
		return now != "0" && now != before
	})
	b.waitForAnswer()
}

// checkReload makes systemd reload keys and certificate, within the sandbox, and checks
// that the process remains the same.
func checkReload(t *testing.T, b *box) {
	t.Helper()
	pid := b.property("MainPID")
	b.sh("systemctl reload go-rocm")
	b.eventually("the service has reloaded its keys", func() bool {
		return strings.Contains(b.sh("journalctl --no-pager -o cat -u go-rocm"), "certificate reloaded")
	})
	if now := b.property("MainPID"); now != pid {
		t.Errorf("reloading made process %s of %s", now, pid)
	}
	b.waitForAnswer()
}

// checkDrain stops the service while a client is still sending its question, for longer
// than the unit's stop timeout. drain allows it, so the client is answered.
func checkDrain(t *testing.T, b *box) {
	t.Helper()
	b.sh(`mkdir /etc/systemd/system/go-rocm.service.d && printf '[Service]\nTimeoutStopSec=2s\n' > /etc/systemd/system/go-rocm.service.d/short.conf
sed -i 's|^#drain = .*|drain = "2m"|' /etc/go-rocm/config.toml
systemctl daemon-reload && systemctl restart go-rocm`)
	b.waitForAnswer()
	out, err := b.Run(t.Context(), "", "bash", "-ec", `exec 3<>/dev/tcp/127.0.0.1/11435
printf 'POST /completion HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: 30\r\n\r\n{"n_predict":4,' >&3
sleep 1
systemctl stop --no-block go-rocm
sleep 6
printf '"prompt":"One"}' >&3 && timeout 60 cat <&3`)
	if err != nil || !strings.Contains(out, " 200 ") || !strings.Contains(out, `"content"`) {
		t.Errorf("while the service ended it answered %q, %v", out, err)
	}
	b.eventually("the service has ended", func() bool { return b.property("ActiveState") == "inactive" })
	if got := b.property("Result"); got != "success" {
		t.Errorf("it ended with %q", got)
	}
	b.sh(`rm -r /etc/systemd/system/go-rocm.service.d && systemctl daemon-reload && systemctl start go-rocm`)
	b.waitForAnswer()
}

// checkSeveralModels makes the service offer two models from its configuration file, one of
// them by its reference in the service's store, then one under another name after a reload,
// and at last the only model again.
func checkSeveralModels(t *testing.T, b *box) {
	t.Helper()
	const store = "env GOROCM_MODELS=/var/lib/go-rocm/models "
	b.sh(`repo=/srv/hub/models--o--m
mkdir -p $repo/blobs $repo/snapshots/0123456789abcdef0123456789abcdef01234567
sum=$(sha256sum /var/lib/go-rocm/models/model.gguf | cut -d' ' -f1)
cp /var/lib/go-rocm/models/model.gguf $repo/blobs/$sum
ln -s ../../blobs/$sum $repo/snapshots/0123456789abcdef0123456789abcdef01234567/m-Q4_1.gguf
chown -R go-rocm: /srv/hub`)
	if out := b.as("go-rocm", store+"go-rocm import /srv/hub"); !strings.Contains(out, "hf:o/m:Q4_1: ") {
		t.Errorf("go-rocm import: %s", out)
	}
	b.sh(`cp -p /etc/go-rocm/config.toml /etc/go-rocm/single.toml
sed -i 's|^model = .*|model = ""|' /etc/go-rocm/config.toml
cat >>/etc/go-rocm/config.toml <<'EOF'
[defaults]
context = 1024
[models.one]
model = "/var/lib/go-rocm/models/model.gguf"
aliases = ["any"]
[models.two]
model = "hf:o/m:Q4_1"
slots = 1
EOF`)
	b.as("go-rocm", store+"go-rocm config check")
	b.sh("systemctl restart go-rocm")
	b.waitForAnswer()
	b.sh("go-rocm load two")
	if list := b.sh("go-rocm ps"); !regexp.MustCompile(`(?m)^one +loaded .*\n^two +loaded `).MatchString(list) {
		t.Errorf("go-rocm ps lists:\n%s", list)
	}
	pid := b.property("MainPID")
	b.sh(`sed -i 's|^\[models.two\]|[models.three]|' /etc/go-rocm/config.toml && systemctl reload go-rocm`)
	b.eventually("the service has reloaded its models", func() bool {
		list := b.sh("go-rocm ps")
		return strings.Contains(list, "\nthree ") && !strings.Contains(list, "\ntwo ")
	})
	b.waitForAnswer()
	if now := b.property("MainPID"); now != pid {
		t.Errorf("reloading made process %s of %s", now, pid)
	}
	b.sh("mv /etc/go-rocm/single.toml /etc/go-rocm/config.toml && systemctl restart go-rocm")
	b.waitForAnswer()
}

// checkExposure checks systemd's own rating of the running unit's sandbox: 0 is closed, 10
// is open.
func checkExposure(t *testing.T, b *box) {
	t.Helper()
	out := b.sh("systemd-analyze security --no-pager go-rocm.service | tail -n 1")
	m := regexp.MustCompile(`(\d+\.\d+)`).FindString(out)
	level, err := strconv.ParseFloat(m, 64)
	if err != nil {
		t.Fatalf("systemd-analyze security: %q", out)
	}
	if level > 1.6 {
		t.Errorf("exposure %.1f, more than 1.6: %s", level, out)
	}
}
