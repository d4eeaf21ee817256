package regfile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Files of keys that other users may write are rejected, and so are those that all may
// read; the group may read. Certificates are public.
func TestSecretsMustBePrivate(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(name, []byte("\ufeffsecret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		mode           fs.FileMode
		secret, public string // what the error says; empty: accepted
	}{
		{0o600, "", ""},
		{0o400, "", ""},
		{0o640, "", ""},
		{0o440, "", ""},
		{0o644, "(mode 0644); run: chmod 600 " + name, ""},
		{0o604, "(mode 0604); run: chmod 600 " + name, ""},
		{0o620, "chmod go-w " + name, "chmod go-w " + name},
		{0o602, "chmod go-w " + name, "chmod go-w " + name},
		{0o666, "(mode 0666); run: chmod go-w", "(mode 0666); run: chmod go-w"},
	} {
		if err := os.Chmod(name, tt.mode); err != nil {
			t.Fatal(err)
		}
		expect := func(kind, says string, b []byte, err error) {
			t.Helper()
			switch {
			case says == "" && (err != nil || string(b) != "secret"):
				t.Errorf("%s of mode %04o: %q, %v", kind, tt.mode, b, err)
			case says != "" && (err == nil || !strings.Contains(err.Error(), says)):
				t.Errorf("%s of mode %04o: %v; want an error that says %q", kind, tt.mode, err, says)
			}
		}
		b, err := ReadSecret(name, 100, func(text string) { t.Error(text) })
		expect("a secret", tt.secret, b, err)
		b, err = ReadPublic(name, 100)
		expect("a certificate", tt.public, b, err)
	}
}

// Secrets that service managers and orchestrators mount may be readable by all.
func TestMountedSecrets(t *testing.T) {
	t.Parallel()
	const ext4, overlay, noSUID = 0xef53, 0x794c7630, 0x2
	for name, tt := range map[string]struct {
		fsType, flags, owner uint32
		want                 bool
	}{
		"systemd credential":              {ramfsMagic, readOnly, 0, true},
		"Docker secret":                   {tmpfsMagic, readOnly, 0, true},
		"Kubernetes secret":               {tmpfsMagic, 0, 0, true},
		"read-only volume":                {ext4, readOnly, 1000, true},
		"in memory, of a user, read-only": {tmpfsMagic, readOnly, 1000, true},
		"file in a container":             {overlay, 0, 0, false},
		"file of a user":                  {ext4, 0, 1000, false},
		"file of a user in /tmp":          {tmpfsMagic, 0, 1000, false},
		"file of root":                    {ext4, 0, 0, false},
		"volume that can be written":      {ext4, noSUID, 1000, false},
	} {
		if got := mountedSecret(tt.fsType, tt.flags, tt.owner); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
