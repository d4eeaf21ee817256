package release_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// newOpenPGP creates a key dated one day ago.
func newOpenPGP(t testing.TB, change func(*packet.Config)) *openpgp.Entity {
	t.Helper()
	c := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Now().AddDate(0, 0, -1) }}
	if change != nil {
		change(c)
	}
	e, err := openpgp.NewEntity("Test", "", "test@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// exported returns the public keys, each in an armoured block of its own.
func exported(t testing.TB, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, e := range keys {
		w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
		if err == nil {
			err = errors.Join(e.Serialize(w), w.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func openPGPKeys(t testing.TB, keys ...*openpgp.Entity) *release.OpenPGPVerifier {
	t.Helper()
	k, err := release.ParseOpenPGPVerifier(exported(t, keys...))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// signOpenPGP signs a message with keys, dated half a day ago.
func signOpenPGP(t testing.TB, message []byte, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.SignatureType, nil)
	if err != nil {
		t.Fatal(err)
	}
	at := &packet.Config{Time: func() time.Time { return time.Now().Add(-12 * time.Hour) }}
	for _, e := range keys {
		if err := openpgp.DetachSign(w, e, bytes.NewReader(message), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func openPGPFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "openpgp", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenPGPVerifiesGnuPGSignatures(t *testing.T) {
	t.Parallel()
	message := openPGPFile(t, "message")
	for _, key := range []string{"signer.asc", "signer.gpg", "rsa.asc"} {
		keys, err := release.ParseOpenPGPVerifier(openPGPFile(t, key))
		if err != nil {
			t.Fatal(err)
		}
		signature := openPGPFile(t, "message.asc")
		if key == "rsa.asc" {
			signature = openPGPFile(t, "message.rsa.asc")
		}
		if err := keys.Verify(message, signature); err != nil {
			t.Errorf("%s: %v", key, err)
		}
		if err := keys.Verify(append(message, '\n'), signature); !errors.Is(err, release.ErrSignature) {
			t.Errorf("%s: another message: %v", key, err)
		}
	}
}

func TestOpenPGPRejects(t *testing.T) {
	t.Parallel()
	list := []byte("the list\n")
	signer, stranger := newOpenPGP(t, nil), newOpenPGP(t, nil)
	expired := newOpenPGP(t, func(c *packet.Config) { c.KeyLifetimeSecs = 18 * 3600 })
	revoked := newOpenPGP(t, nil)
	sig := signOpenPGP(t, list, signer)
	byRevoked := signOpenPGP(t, list, revoked)
	if err := revoked.RevokeKey(packet.KeyCompromised, "lost", nil); err != nil {
		t.Fatal(err)
	}
	var notDetached bytes.Buffer
	w, err := armor.Encode(&notDetached, "PGP MESSAGE", nil)
	if err == nil {
		_, err = io.WriteString(w, "x")
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		keys    *release.OpenPGPVerifier
		message []byte
		sig     []byte
		want    string // empty: the signature is valid
	}{
		"valid signature":          {openPGPKeys(t, signer), list, sig, ""},
		"by the second of two":     {openPGPKeys(t, stranger, signer), list, sig, ""},
		"one of two signatures":    {openPGPKeys(t, signer), list, signOpenPGP(t, list, stranger, signer), ""},
		"the other key is expired": {openPGPKeys(t, expired, signer), list, signOpenPGP(t, list, expired, signer), ""},
		"changed message":          {openPGPKeys(t, signer), []byte("the List\n"), sig, "invalid signature"},
		"another's key":            {openPGPKeys(t, stranger), list, sig, "not signed by the key"},
		"expired":                  {openPGPKeys(t, expired), list, signOpenPGP(t, list, expired), "key expired"},
		"revoked":                  {openPGPKeys(t, revoked), list, byRevoked, "revoked"},
		"nothing":                  {openPGPKeys(t, signer), list, nil, "not an armoured signature"},
		"a word":                   {openPGPKeys(t, signer), list, []byte("hello"), "not an armoured signature"},
		"cut":                      {openPGPKeys(t, signer), list, sig[:len(sig)/2], "not signed by the key"},
		"a block of another kind":  {openPGPKeys(t, signer), list, notDetached.Bytes(), "PGP MESSAGE"},
	} {
		t.Run(name, func(t *testing.T) {
			err := tc.keys.Verify(tc.message, tc.sig)
			if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, release.ErrSignature) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want one about %q", err, tc.want)
			}
		})
	}
	for name, text := range map[string][]byte{"nothing": nil, "no key": []byte("hello"), "a signature": sig, "cut": exported(t, signer)[:150]} {
		if _, err := release.ParseOpenPGPVerifier(text); !errors.Is(err, release.ErrKey) || !strings.Contains(err.Error(), "gpg --armor --export") {
			t.Errorf("%s as a key: %v", name, err)
		}
	}
}

// The position of a block in the buffer must not affect the next one.
func TestReadKeyRingReadsSeveralBlocks(t *testing.T) {
	t.Parallel()
	text := exported(t, newOpenPGP(t, nil), newOpenPGP(t, nil), newOpenPGP(t, nil))
	for shift := range 128 {
		keys, err := release.ReadKeyRing(append([]byte(strings.Repeat("x", shift)+"\n"), text...))
		if err != nil || len(keys) != 3 {
			t.Fatalf("moved by %d bytes: %d keys of 3, %v", shift, len(keys), err)
		}
	}
}

// No signature created without the key is valid.
func FuzzOpenPGPVerify(f *testing.F) {
	signer := newOpenPGP(f, nil)
	keys := openPGPKeys(f, signer)
	f.Add(string(signOpenPGP(f, []byte("the list"), signer)))
	f.Add("-----BEGIN PGP SIGNATURE-----\n\niQ==\n-----END PGP SIGNATURE-----\n")
	f.Fuzz(func(t *testing.T, signature string) {
		if err := keys.Verify([]byte("another list"), []byte(signature)); !errors.Is(err, release.ErrSignature) {
			t.Errorf("got %v", err)
		}
	})
}
