// Package pgpkeys generates OpenPGP keys for tests of signature verification: valid ones, and those
// that a client of a supported system refuses.
package pgpkeys

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha1" // for the weak keys
	"slices"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Key is a key for signatures.
type Key struct {
	// Name describes the key.
	Name string
	// Entity is the key with its private half.
	Entity *openpgp.Entity
	// Refused is part of the reason why a client refuses the key; empty if all
	// clients accept it.
	Refused string
}

// Private returns the key as `gpg --export-secret-keys` writes it.
func (k Key) Private(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := k.Entity.SerializePrivateWithoutSigning(&b, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Keys returns a key of each kind. All were created two days before at, the time of their signatures.
func Keys(t testing.TB, at time.Time) []Key {
	t.Helper()
	g := generator{t, at}
	rsa := func(bits int) func(*packet.Config) {
		return func(c *packet.Config) {
			k, err := rsa.GenerateKey(rand.Reader, bits)
			if err != nil {
				t.Fatal(err)
			}
			// The key and its subkey for encryption, which is removed.
			c.Algorithm, c.RSABits, c.RSAPrimes = packet.PubKeyAlgoRSA, bits, slices.Concat(k.Primes, k.Primes)
		}
	}
	p256 := func(c *packet.Config) { c.Algorithm, c.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP256 }
	strong := func(*packet.Signature) {}
	weak := func(s *packet.Signature) { s.Hash = crypto.SHA1 }
	late := func(s *packet.Signature) { s.CreationTime = at.Add(time.Hour) }
	newer := func(s *packet.Signature) { s.CreationTime = at.Add(-time.Hour) }
	return []Key{
		{"Ed25519", g.key(nil), ""},
		{"RSA of 2048 bits", g.key(rsa(2048)), ""},
		{"RSA of 1024 bits", g.key(rsa(1024)), "less than 2048 bits"},
		{"Ed25519 subkey", g.withSubkey(g.key(nil), strong, strong), ""},
		{"Ed25519 subkey of a P-256 key", g.withSubkey(g.key(p256), strong, strong), ""},
		{"Ed25519 subkey of an RSA key of 1024 bits", g.withSubkey(g.key(rsa(1024)), strong, strong), "less than 2048 bits"},
		{"SHA-1 self-signature", g.selfSigned(g.key(nil), weak), "self-signature uses SHA-1"},
		{"SHA-1 self-signature after a SHA-512 one", g.selfSigned(g.key(nil), strong, both(weak, newer)), ""},
		{"SHA-1 binding of a subkey", g.withSubkey(g.key(nil), weak, strong), "binds its signing subkey uses SHA-1"},
		{"SHA-1 binding by a subkey", g.withSubkey(g.key(nil), strong, weak), "binds its primary key uses SHA-1"},
		{"self-signature after the publish", g.selfSigned(g.key(nil), late), "after this publish"},
	}
}

func both(a, b func(*packet.Signature)) func(*packet.Signature) {
	return func(s *packet.Signature) { a(s); b(s) }
}

// generator creates keys for signatures at a given time.
type generator struct {
	t  testing.TB
	at time.Time
}

func (g generator) config() *packet.Config {
	created := g.at.AddDate(0, 0, -2)
	return &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA512, Time: func() time.Time { return created },
		NonDeterministicSignaturesViaNotation: packet.BoolPointer(false), // it needs a salt, which SHA-1 does not have
	}
}

// key returns a signing key without subkeys.
func (g generator) key(change func(*packet.Config)) *openpgp.Entity {
	g.t.Helper()
	c := g.config()
	if change != nil {
		change(c)
	}
	e, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", c)
	if err != nil {
		g.t.Fatal(err)
	}
	e.Subkeys = nil // those for encryption
	return e
}

// selfSigned replaces the self-signature of the key with changed copies of it.
func (g generator) selfSigned(e *openpgp.Entity, changes ...func(*packet.Signature)) *openpgp.Entity {
	g.t.Helper()
	id := e.PrimaryIdentity()
	template := *id.SelfSignature
	id.Signatures = nil
	for _, change := range changes {
		s := template
		change(&s)
		if err := s.SignUserId(id.UserId.Id, e.PrimaryKey, e.PrivateKey, g.config()); err != nil {
			g.t.Fatal(err)
		}
		id.SelfSignature = &s
		id.Signatures = append(id.Signatures, &s)
	}
	return e
}

// withSubkey adds an Ed25519 subkey that signs instead of the primary key. binding changes the
// signature by the primary key, back the one by the subkey.
func (g generator) withSubkey(e *openpgp.Entity, binding, back func(*packet.Signature)) *openpgp.Entity {
	g.t.Helper()
	c := g.config()
	if err := e.AddSigningSubkey(c); err != nil {
		g.t.Fatal(err)
	}
	s := &e.Subkeys[0]
	back(s.Sig.EmbeddedSignature)
	if err := s.Sig.EmbeddedSignature.CrossSignKey(s.PublicKey, e.PrimaryKey, s.PrivateKey, c); err != nil {
		g.t.Fatal(err)
	}
	binding(s.Sig)
	if err := s.Sig.SignKey(s.PublicKey, e.PrivateKey, c); err != nil {
		g.t.Fatal(err)
	}
	return e
}
