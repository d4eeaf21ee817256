package apt

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	releases "forge.lthn.ai/core/go-rocm/pkg/release"
)

// Keys are the OpenPGP keys of a repository. Each key with a private half signs;
// clients receive the public halves of all. With an old and a new key in one file,
// clients that have either accept the repository until the old key is left out.
type Keys struct{ entities openpgp.EntityList }

// ParseKeys reads keys as `gpg --export-secret-keys` writes them, armoured or
// not; several armoured blocks may follow each other. The passphrase unlocks the
// private keys that have one.
func ParseKeys(text, passphrase []byte) (*Keys, error) {
	entities, err := releases.ReadKeyRing(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: use the output of `gpg --armor --export-secret-keys NAME`", ErrKey, err)
	}
	k := &Keys{entities: entities}
	private := 0
	for _, e := range k.entities {
		if e.PrivateKey == nil {
			continue
		}
		private++
		if err := unlock(e, passphrase); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrKey, fingerprint(e), err)
		}
	}
	if private == 0 {
		return nil, fmt.Errorf("%w: no private key among %d keys: use the output of `gpg --armor --export-secret-keys NAME`", ErrKey, len(k.entities))
	}
	return k, nil
}

func unlock(e *openpgp.Entity, passphrase []byte) error {
	locked := e.PrivateKey.Encrypted
	for _, s := range e.Subkeys {
		locked = locked || s.PrivateKey != nil && s.PrivateKey.Encrypted
	}
	if !locked {
		return nil
	}
	if len(passphrase) == 0 {
		return errors.New("the key is locked: set its passphrase")
	}
	return e.DecryptPrivateKeys(passphrase)
}

func fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
}

// Fingerprints returns the fingerprints of the keys in the order of the file.
func (k *Keys) Fingerprints() []string {
	var out []string
	for _, e := range k.entities {
		out = append(out, fingerprint(e))
	}
	return out
}

// signers returns the signing key of each key with a private half, or an error if
// one of them cannot sign at that time.
func (k *Keys) signers(at time.Time) ([]*packet.PrivateKey, error) {
	var out []*packet.PrivateKey
	for _, e := range k.entities {
		if e.PrivateKey == nil {
			continue
		}
		key, ok := e.SigningKey(at)
		if !e.PrimaryKey.CreationTime.After(at) {
			if err := checkUserID(e, at); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", ErrKey, fingerprint(e), err)
			}
		}
		switch {
		case !ok || e.PrimaryKey.CreationTime.After(at) || key.PublicKey.CreationTime.After(at):
			return nil, fmt.Errorf("%w: %s cannot sign at %s: it was created on %s, has expired by then, was revoked, or is not a signing key",
				ErrKey, fingerprint(e), at.UTC().Format(time.RFC3339), e.PrimaryKey.CreationTime.UTC().Format(time.RFC3339))
		case key.PrivateKey == nil || key.PrivateKey.Dummy():
			return nil, fmt.Errorf("%w: %s: the private half of its signing key is missing", ErrKey, fingerprint(e))
		case key.PublicKey.Version != 4 || !supportedAlgorithm(key.PublicKey.PubKeyAlgo):
			return nil, fmt.Errorf("%w: %s: clients accept only Ed25519 and RSA keys of version 4: create one with `gpg --quick-generate-key NAME ed25519 sign`", ErrKey, fingerprint(e))
		}
		if err := checkClientPolicy(e, key, at); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrKey, fingerprint(e), err)
		}
		out = append(out, key.PrivateKey)
	}
	return out, nil
}

// supportedAlgorithm reports whether the gpgv of Debian 12 verifies signatures of
// this algorithm, and whether they are deterministic, which those of ECDSA are
// not.
func supportedAlgorithm(a packet.PublicKeyAlgorithm) bool {
	return a == packet.PubKeyAlgoEdDSA || a == packet.PubKeyAlgoRSA
}

// usable returns an error unless the keys can sign at from and are still valid at
// until.
func (k *Keys) usable(from, until time.Time) error {
	if _, err := k.signers(from); err != nil {
		return err
	}
	if _, err := k.signers(until); err != nil {
		return fmt.Errorf("the repository must be valid until %s: %w", until.Format(time.RFC3339), err)
	}
	return nil
}

// config makes signatures depend only on the key, the text and the time.
func config(at time.Time) *packet.Config {
	return &packet.Config{
		DefaultHash:                           crypto.SHA512,
		Time:                                  func() time.Time { return at },
		NonDeterministicSignaturesViaNotation: packet.BoolPointer(false),
	}
}

// clearSign returns a clear-signed text, the format of InRelease.
func (k *Keys) clearSign(text []byte, at time.Time) ([]byte, error) {
	signers, err := k.signers(at)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := clearsign.EncodeMulti(&b, signers, config(at))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	// The encoder writes the newline before the signature.
	_, err = w.Write(bytes.TrimRight(text, "\n"))
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Sign returns armoured detached signatures of a text, one for each key with a
// private half: the format of Release.gpg. The same text and time produce the
// same bytes.
func (k *Keys) Sign(text []byte, at time.Time) ([]byte, error) {
	if _, err := k.signers(at); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	// RFC 9580 leaves the checksum out. It is written all the same: without it,
	// GnuPG 2.2 reads the last line as data if the line before it is full.
	w, err := armor.Encode(&b, openpgp.SignatureType, nil)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	for _, e := range k.entities {
		if e.PrivateKey == nil {
			continue
		}
		if err := openpgp.DetachSign(w, e, bytes.NewReader(text), config(at)); err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// clearSignedText returns the text of a clear-signed message without verifying
// its signatures.
func clearSignedText(signed []byte) ([]byte, error) {
	block, _ := clearsign.Decode(signed)
	if block == nil {
		return nil, errors.New("InRelease is not signed")
	}
	return block.Plaintext, nil
}

// verifyClearSigned verifies a clear-signed message and returns its text.
func (k *Keys) verifyClearSigned(signed []byte, at time.Time) ([]byte, error) {
	block, _ := clearsign.Decode(signed)
	if block == nil {
		return nil, errors.New("it is not signed")
	}
	if _, err := block.VerifySignature(k.entities, config(at)); err != nil {
		return nil, fmt.Errorf("it is not signed by %s: %w", strings.Join(k.Fingerprints(), ", "), err)
	}
	return block.Plaintext, nil
}

// Keyring returns the public halves of the keys without armour, as apt's
// Signed-By option reads them.
func (k *Keys) Keyring() ([]byte, error) {
	var b bytes.Buffer
	for _, e := range k.entities {
		if err := e.Serialize(&b); err != nil {
			return nil, fmt.Errorf("%w: export the public key: %w", ErrKey, err)
		}
	}
	return b.Bytes(), nil
}
