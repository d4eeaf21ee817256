package selftest

import (
	"bytes"
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/runtime/gpu"
)

// fill sets every text of a value, and returns how many there are.
func fill(v reflect.Value, text string) int {
	n := 0
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			n = fill(v.Elem(), text)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				n += fill(v.Field(i), text)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			n += fill(v.Index(i), text)
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[string]() {
			v.SetString(text)
			n = 1
		}
	}
	return n
}

// TestAReportHasNoPersonalData plants names, directories, serial numbers and addresses
// into every text of a report.
func TestAReportHasNoPersonalData(t *testing.T) {
	t.Setenv("USER", "adalovelace")
	t.Setenv("LOGNAME", "alovelace2")
	t.Setenv("SUDO_USER", "babbage")
	t.Setenv("HOME", "/home/adalovelace")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/4711")
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	devices := []gpu.Device{{UniqueID: 0x5ca1ab1e0ddba11}}
	planted := map[string]string{
		"adalovelace": "adalovelace (uid 1000) is not in the group render", "alovelace2": "usermod -aG render alovelace2", "babbage": "babbage,babbage, babbage",
		"diary":            "open /home/adalovelace/diary/model.gguf: no such file",
		"thesis":           "read '/mnt/thesis/private/model.gguf': input/output error",
		"My Wedding":       "stat /home/adalovelace/My Wedding: permission denied",
		"My Wedding 2":     "open /home/adalovelace/My Wedding 2/model.gguf: no such file",
		"Charles":          "/mnt/Charles Babbage/engine/test-backend-ops: permission denied",
		"4711":             "dial unix /run/user/4711/go-rocm/a.sock",
		"weddings":         "load /srv/weddings/model.gguf",
		host:               "on " + host + ": no device",
		"05ca1ab1e0ddba11": "ROCR_VISIBLE_DEVICES=GPU-05ca1ab1e0ddba11", "5ca1ab1e0ddba11": "serial 5ca1ab1e0ddba11", "417175266769353233": "unique_id 417175266769353233",
		"feedfacecafebeef": "GPU-feedfacecafebeef",
		"1b4e28ba":         "disk 1b4e28ba-2fa1-11d2-883f-0016d3cca427", "AA:bb": "eth0 AA:bb:cc:00:11:22 is up",
	}
	for secret, text := range planted {
		r := exampleReport()
		if n := fill(reflect.ValueOf(r), text); n < 40 {
			t.Fatalf("only %d texts in the report", n)
		}
		newRedactor("/", devices, "/srv/weddings/model.gguf", "/home/adalovelace/My Wedding/model.gguf", "/home/adalovelace/My Wedding 2/model.gguf", "/mnt/Charles Babbage/engine/test-backend-ops").redact(r)
		raw, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var markdown bytes.Buffer
		if err := r.Markdown(&markdown); err != nil {
			t.Fatal(err)
		}
		for _, out := range []string{string(raw), markdown.String()} {
			if at := strings.Index(out, secret); at >= 0 {
				t.Errorf("%q is in the report: %s", secret, out[max(0, at-60):min(len(out), at+60)])
				break
			}
		}
	}
}

// TestWhatARemedyNeedsStays: devices, files of the system and words that contain a name.
func TestWhatARemedyNeedsStays(t *testing.T) {
	r := makeRedactor([]string{"root", "localhost", "", "max"}, []string{"/"}, nil)
	for _, text := range []string{
		"/dev/dri/renderD128 may not be opened; usermod -aG render,video", "see /sys/class/drm/card1/device/hwmon", "0000:03:00.0 at most 71 °C, 12:34:56",
		"see /usr/share/vulkan/icd.d/radeon_icd.x86_64.json", "maximum of the root", "run as root on localhost", "sha256:0123456789abcdef",
	} {
		if got := r.text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	if got := r.text("max, max max"); got != "…, … …" {
		t.Errorf("got %q", got)
	}
}
