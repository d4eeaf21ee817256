package apt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// reader is a program with which a receiver checks a signature: the keyring, not
// armoured, the signature and the text give its arguments.
type reader struct {
	program string
	argv    func(keyring, signature, text string) []string
}

// readers are those of them that this machine has. One of the first two is where
// apt is, since apt calls it.
func readers(t *testing.T) []reader {
	t.Helper()
	var out []reader
	for _, r := range []reader{
		{"gpgv", func(keyring, signature, text string) []string { return []string{"--keyring", keyring, signature, text} }},
		{"sqv", func(keyring, signature, text string) []string { return []string{"--keyring", keyring, signature, text} }},
		{"gpg", func(keyring, signature, text string) []string {
			return []string{"--batch", "--no-default-keyring", "--keyring", keyring, "--trust-model", "always", "--verify", signature, text}
		}},
	} {
		if _, err := exec.LookPath(r.program); err == nil {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		t.Fatal("there is neither gpgv nor sqv nor gpg here: run `apt-get install gpgv`")
	}
	return out
}

func (r reader) accepts(t *testing.T, keyring, signature, text string) (bool, string) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), r.program, r.argv(keyring, signature, text)...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+home, "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err == nil, string(out)
}

// A list that is signed by the repository's key is checked by the programs that
// receivers have, and by ours.
func TestSignIsWhatReceiversCheck(t *testing.T) {
	at := time.Now().Add(-time.Hour)
	aged := func(c *packet.Config) { c.Time = func() time.Time { return at.AddDate(0, 0, -1) } }
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	list := []byte("7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a\n")
	text, changed := file("list", list), file("changed", append([]byte("#\n"), list...))
	stranger, err := keysOf(t, newKey(t, aged)).Keyring()
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*packet.Config){
		"Ed25519": aged,
		"RSA":     func(c *packet.Config) { aged(c); c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 3072 },
	} {
		t.Run(name, func(t *testing.T) {
			keys := keysOf(t, newKey(t, change))
			sig, err := keys.Sign(list, at)
			if err != nil {
				t.Fatal(err)
			}
			if again, err := keys.Sign(list, at); err != nil || string(again) != string(sig) {
				t.Errorf("signed differently the second time: %v", err)
			}
			public, err := keys.Keyring()
			if err != nil {
				t.Fatal(err)
			}
			signature, keyring, other := file(name+".asc", sig), file(name+".gpg", public), file("stranger.gpg", stranger)
			for _, r := range readers(t) {
				for what, tc := range map[string]struct {
					keyring, text string
					want          bool
				}{
					"as it was signed": {keyring, text, true},
					"another text":     {keyring, changed, false},
					"another key":      {other, text, false},
				} {
					if ok, said := r.accepts(t, tc.keyring, signature, tc.text); ok != tc.want {
						t.Errorf("%s, %s: accepted is %t\n%s", r.program, what, ok, said)
					}
				}
			}
			ours, err := release.ParseOpenPGPVerifier(public)
			if err != nil {
				t.Fatal(err)
			}
			if err := ours.Verify(list, sig); err != nil {
				t.Error(err)
			}
			strange, err := release.ParseOpenPGPVerifier(stranger)
			if err != nil {
				t.Fatal(err)
			}
			if err := strange.Verify(list, sig); !errors.Is(err, release.ErrSignature) {
				t.Errorf("another key: %v", err)
			}
		})
	}
	if _, err := keysOf(t, newKey(t, aged)).Sign(list, at.AddDate(0, 0, -2)); !errors.Is(err, apt.ErrKey) {
		t.Errorf("signed before the key was made: %v", err)
	}
}
