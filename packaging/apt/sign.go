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

// Keys are the OpenPGP keys of a repository. Each that has a private half signs;
// the public halves of all are what clients are given. With an old and a new key
// in one file, clients that have either follow, until the old one is left out.
type Keys struct{ entities openpgp.EntityList }

// ParseKeys reads keys as `gpg --export-secret-keys` writes them, armoured or
// not; several armoured blocks may follow each other. The passphrase is for
// those private keys that are locked.
func ParseKeys(text, passphrase []byte) (*Keys, error) {
	entities, err := releases.ReadKeyRing(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w: give the output of `gpg --armor --export-secret-keys NAME`", ErrKey, err)
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
		return nil, fmt.Errorf("%w: there is no private key among %d: give the output of `gpg --armor --export-secret-keys NAME`", ErrKey, len(k.entities))
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
		return errors.New("the key is locked: give its passphrase")
	}
	return e.DecryptPrivateKeys(passphrase)
}

func fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(hex.EncodeToString(e.PrimaryKey.Fingerprint))
}

// Fingerprints names the keys, in the order of the file.
func (k *Keys) Fingerprints() []string {
	var out []string
	for _, e := range k.entities {
		out = append(out, fingerprint(e))
	}
	return out
}

// signers gives the signing key of each key that has a private half.
func (k *Keys) signers(at time.Time) ([]*packet.PrivateKey, error) {
	var out []*packet.PrivateKey
	for _, e := range k.entities {
		if e.PrivateKey == nil {
			continue
		}
		key, ok := e.SigningKey(at)
		switch {
		case !ok || e.PrimaryKey.CreationTime.After(at) || key.PublicKey.CreationTime.After(at):
			return nil, fmt.Errorf("%w: %s cannot sign at %s: it was made on %s, has expired by then, was revoked, or is not for signing",
				ErrKey, fingerprint(e), at.UTC().Format(time.RFC3339), e.PrimaryKey.CreationTime.UTC().Format(time.RFC3339))
		case key.PrivateKey == nil || key.PrivateKey.Dummy():
			return nil, fmt.Errorf("%w: %s: the private half of its signing key is missing", ErrKey, fingerprint(e))
		case key.PublicKey.Version != 4 || !clientsRead(key.PublicKey.PubKeyAlgo):
			return nil, fmt.Errorf("%w: %s: clients read signatures by Ed25519 and RSA keys of version 4 alone: make one with `gpg --quick-generate-key NAME ed25519 sign`", ErrKey, fingerprint(e))
		}
		out = append(out, key.PrivateKey)
	}
	return out, nil
}

// clientsRead tells whether the gpgv of Debian 12 checks such a signature, and
// whether signing the same text twice gives the same bytes, which ECDSA does not.
func clientsRead(a packet.PublicKeyAlgorithm) bool {
	return a == packet.PubKeyAlgoEdDSA || a == packet.PubKeyAlgoRSA
}

// usable says whether the keys can sign at a time and are still good later.
func (k *Keys) usable(from, until time.Time) error {
	if _, err := k.signers(from); err != nil {
		return err
	}
	if _, err := k.signers(until); err != nil {
		return fmt.Errorf("clients are to trust the repository until %s: %w", until.Format(time.RFC3339), err)
	}
	return nil
}

// config makes signatures that depend on key, text and time alone.
func config(at time.Time) *packet.Config {
	return &packet.Config{
		DefaultHash:                           crypto.SHA512,
		Time:                                  func() time.Time { return at },
		NonDeterministicSignaturesViaNotation: packet.BoolPointer(false),
	}
}

// clearSign gives a text with its signatures below it, as InRelease has them.
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
	// The line end before the signature is written by the format.
	_, err = w.Write(bytes.TrimRight(text, "\n"))
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// Sign gives the signatures of a text by each key that has a private half, apart
// from the text and armoured, as Release.gpg has them. The same text and time
// give the same bytes.
func (k *Keys) Sign(text []byte, at time.Time) ([]byte, error) {
	if _, err := k.signers(at); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	// With the checksum that RFC 9580 leaves out: without one, GnuPG 2.2 takes the
	// last line for data where the one before it is full.
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

// signedText takes a clear-signed text out of its signatures without a look at
// them.
func signedText(signed []byte) ([]byte, error) {
	block, _ := clearsign.Decode(signed)
	if block == nil {
		return nil, errors.New("InRelease is not signed")
	}
	return block.Plaintext, nil
}

// open checks a clear-signed text and gives what was signed.
func (k *Keys) open(signed []byte, at time.Time) ([]byte, error) {
	block, _ := clearsign.Decode(signed)
	if block == nil {
		return nil, errors.New("it is not signed")
	}
	if _, err := block.VerifySignature(k.entities, config(at)); err != nil {
		return nil, fmt.Errorf("it is not signed by %s: %w", strings.Join(k.Fingerprints(), ", "), err)
	}
	return block.Plaintext, nil
}

// Keyring returns the public halves, not armoured, as apt's Signed-By reads them.
func (k *Keys) Keyring() ([]byte, error) {
	var b bytes.Buffer
	for _, e := range k.entities {
		if err := e.Serialize(&b); err != nil {
			return nil, fmt.Errorf("%w: write the public half: %w", ErrKey, err)
		}
	}
	return b.Bytes(), nil
}
