package apt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

func TestParseKeys(t *testing.T) {
	t.Parallel()
	plain := newKey(t, nil)
	locked := newKey(t, nil)
	if err := locked.EncryptPrivateKeys([]byte("open sesame"), nil); err != nil {
		t.Fatal(err)
	}
	lockedText := export(t, locked, true)
	for name, tc := range map[string]struct {
		text, passphrase []byte
		want             string
	}{
		"plain":            {export(t, plain, true), nil, ""},
		"locked":           {lockedText, []byte("open sesame"), ""},
		"no passphrase":    {lockedText, nil, "set its passphrase"},
		"wrong passphrase": {lockedText, []byte("open barley"), "checksum"},
		"public half":      {export(t, plain, false), nil, "no private key"},
		"empty":            {nil, nil, "export-secret-keys"},
		"no key":           {[]byte("hello"), nil, "export-secret-keys"},
		"cut":              {export(t, plain, true)[:200], nil, "export-secret-keys"},
		"another block":    {[]byte("-----BEGIN PGP MESSAGE-----\n\nyw==\n-----END PGP MESSAGE-----\n"), nil, "is not a key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			keys, err := apt.ParseKeys(tc.text, tc.passphrase)
			if tc.want == "" {
				if err != nil || len(keys.Fingerprints()) != 1 || len(keys.Fingerprints()[0]) != 40 {
					t.Errorf("got %v, %v", keys, err)
				}
				return
			}
			if !errors.Is(err, apt.ErrKey) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want an error about %q", err, tc.want)
			}
		})
	}
}

// A key that clients would refuse is rejected before anything is written.
func TestPublishRejectsUnusableKeys(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*packet.Config)
		want   string
	}{
		"created later":     {func(c *packet.Config) { c.Time = func() time.Time { return first.Add(time.Hour) } }, "it was created on"},
		"expires too early": {func(c *packet.Config) { c.KeyLifetimeSecs = 30 * 86400 }, "the repository must be valid until 2027-02-18"},
		"expired":           {func(c *packet.Config) { c.KeyLifetimeSecs = 3600 }, "has expired"},
		"nondeterministic signatures": {func(c *packet.Config) {
			c.Algorithm, c.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP256
		}, "Ed25519 and RSA"},
		"a format that gpgv cannot read": {func(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoEd25519 }, "Ed25519 and RSA"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := apt.Publish(t.Context(), options(t.TempDir(), keysOf(t, newKey(t, tc.change)), first))
			if !errors.Is(err, apt.ErrKey) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want an error about %q", err, tc.want)
			}
		})
	}
	publish(t, options(t.TempDir(), keysOf(t, newKey(t, withRSA(t))), first))
}

// verifier is a program that verifies a signature. argv returns its arguments; the
// keyring has no armour.
type verifier struct {
	program string
	argv    func(keyring, signature, text string) []string
}

// verifiers returns the programs that are installed. Wherever apt is, one of the
// first two is: apt calls it.
func verifiers(t *testing.T) []verifier {
	t.Helper()
	var out []verifier
	for _, r := range []verifier{
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
		t.Fatal("neither gpgv, sqv nor gpg is installed: run `apt-get install gpgv`")
	}
	return out
}

func (v verifier) accepts(t *testing.T, keyring, signature, text string) (bool, string) {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), v.program, v.argv(keyring, signature, text)...)
	cmd.Env = append(os.Environ(), "GNUPGHOME="+home, "LC_ALL=C.UTF-8")
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return err == nil, string(out)
}

func TestSignaturesVerifyWithGnuPGAndSequoia(t *testing.T) {
	t.Parallel()
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
		"RSA":     func(c *packet.Config) { aged(c); withRSA(t)(c) },
	} {
		t.Run(name, func(t *testing.T) {
			keys := keysOf(t, newKey(t, change))
			sig, err := keys.Sign(list, at)
			if err != nil {
				t.Fatal(err)
			}
			if second, err := keys.Sign(list, at); err != nil || string(second) != string(sig) {
				t.Errorf("the second signature differs: %v", err)
			}
			public, err := keys.Keyring()
			if err != nil {
				t.Fatal(err)
			}
			signature, keyring, other := file(name+".asc", sig), file(name+".gpg", public), file("stranger.gpg", stranger)
			for _, r := range verifiers(t) {
				for what, tc := range map[string]struct {
					keyring, text string
					want          bool
				}{
					"signed text":  {keyring, text, true},
					"another text": {keyring, changed, false},
					"another key":  {other, text, false},
				} {
					if ok, output := r.accepts(t, tc.keyring, signature, tc.text); ok != tc.want {
						t.Errorf("%s, %s: accepted is %t\n%s", r.program, what, ok, output)
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
		t.Errorf("signed before the key was created: %v", err)
	}
}
