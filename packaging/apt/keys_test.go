package apt_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
)

func TestParseKeys(t *testing.T) {
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
		"no passphrase":    {lockedText, nil, "give its passphrase"},
		"wrong passphrase": {lockedText, []byte("open barley"), "checksum"},
		"public half":      {export(t, plain, false), nil, "no private key"},
		"empty":            {nil, nil, "export-secret-keys"},
		"no key":           {[]byte("hello"), nil, "export-secret-keys"},
		"cut":              {export(t, plain, true)[:200], nil, "export-secret-keys"},
		"another block":    {[]byte("-----BEGIN PGP MESSAGE-----\n\nyw==\n-----END PGP MESSAGE-----\n"), nil, "no key"},
	} {
		t.Run(name, func(t *testing.T) {
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

// A key that clients would refuse is refused before anything is written.
func TestKeysThatCannotSign(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*packet.Config)
		want   string
	}{
		"made later":        {func(c *packet.Config) { c.Time = func() time.Time { return first.Add(time.Hour) } }, "it was made on"},
		"expires too early": {func(c *packet.Config) { c.KeyLifetimeSecs = 30 * 86400 }, "clients are to trust the repository until 2027-02-18"},
		"expired":           {func(c *packet.Config) { c.KeyLifetimeSecs = 3600 }, "has expired"},
		"an elliptic curve whose signatures differ": {func(c *packet.Config) {
			c.Algorithm, c.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP256
		}, "Ed25519 and RSA"},
		"a form that gpgv does not read": {func(c *packet.Config) { c.Algorithm = packet.PubKeyAlgoEd25519 }, "Ed25519 and RSA"},
	} {
		t.Run(name, func(t *testing.T) {
			err := apt.Publish(t.Context(), options(t.TempDir(), keysOf(t, newKey(t, tc.change)), first))
			if !errors.Is(err, apt.ErrKey) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want an error about %q", err, tc.want)
			}
		})
	}
	rsa := newKey(t, func(c *packet.Config) { c.Algorithm, c.RSABits = packet.PubKeyAlgoRSA, 3072 })
	publish(t, options(t.TempDir(), keysOf(t, rsa), first))
}
