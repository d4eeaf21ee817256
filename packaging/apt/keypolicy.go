package apt

import (
	"crypto"
	"errors"
	"fmt"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// minRSABits is the size of RSA keys that apt accepts since version 2.8, as
// APT::Key::Assert-Pubkey-Algo says, and that sqv does not consider weak.
const minRSABits = 2048

// rsa2048End is when apt's configuration of sqv stops accepting RSA keys of less
// than so many bits (/usr/share/apt/default-sequoia.config in Debian 13).
var rsa2048End = struct {
	bits uint16
	time time.Time
}{3072, time.Date(2030, 2, 1, 0, 0, 0, 0, time.UTC)}

// checkClientPolicy returns an error if a supported client would refuse signatures
// by the key at that time. The strictest client is sqv, which apt uses since
// Debian 13: it verifies not only the signature of the Release file, but also the
// signatures that bind the user ID and the signing subkey to the key, as of the
// time of the signature (https://docs.rs/sequoia-openpgp/latest/sequoia_openpgp/policy/).
// gpgv, the verifier of Debian 12, accepts a SHA-1 binding.
func checkClientPolicy(e *openpgp.Entity, key openpgp.Key, at time.Time) error {
	for _, k := range []*packet.PublicKey{e.PrimaryKey, key.PublicKey} {
		if err := checkAlgorithm(k, at); err != nil {
			return err
		}
	}
	if key.PublicKey == e.PrimaryKey {
		return nil
	}
	for name, sig := range map[string]*packet.Signature{
		"signature that binds its signing subkey":       key.SelfSignature,
		"subkey's signature that binds its primary key": key.SelfSignature.EmbeddedSignature,
	} {
		if err := checkBinding(sig, at); err != nil {
			return fmt.Errorf("the %s %w: create a new signing subkey with `gpg --cert-digest-algo SHA512 --quick-add-key FINGERPRINT ed25519 sign`", name, err)
		}
	}
	return nil
}

func checkAlgorithm(k *packet.PublicKey, at time.Time) error {
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoEdDSA, packet.PubKeyAlgoECDSA:
		return nil
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		bits, err := k.BitLength()
		if err != nil {
			return err
		}
		if bits < rsa2048End.bits && !at.Before(rsa2048End.time) {
			return fmt.Errorf("clients refuse RSA keys of less than %d bits from %s on, and this one has %d: create one with `gpg --quick-generate-key NAME ed25519 sign`",
				rsa2048End.bits, rsa2048End.time.Format(time.DateOnly), bits)
		}
		if bits < minRSABits {
			return fmt.Errorf("clients refuse RSA keys of less than %d bits, and this one has %d: create one with `gpg --quick-generate-key NAME ed25519 sign`", minRSABits, bits)
		}
		return nil
	}
	return errors.New("clients refuse the algorithm of its primary key: create one with `gpg --quick-generate-key NAME ed25519 sign`")
}

// checkUserID requires a user ID that a client accepts. A newer self-signature,
// with which the owner extended the life of the key, does not invalidate an older
// one.
func checkUserID(e *openpgp.Entity, at time.Time) error {
	reason := errors.New("is missing")
	for _, id := range e.Identities {
		if id.Revoked(at) {
			continue
		}
		for _, sig := range id.Signatures {
			if sig.SigType == packet.SigTypeCertificationRevocation || !sig.CheckKeyIdOrFingerprint(e.PrimaryKey) {
				continue
			}
			err := checkBinding(sig, at)
			if err == nil {
				return nil
			}
			reason = err
		}
	}
	return fmt.Errorf("its self-signature %w: sign its user ID again with `gpg --cert-digest-algo SHA512 --quick-set-expire FINGERPRINT 5y`, or create another key", reason)
}

// checkBinding returns an error if clients ignore a signature within the key.
func checkBinding(sig *packet.Signature, at time.Time) error {
	switch {
	case sig == nil:
		return errors.New("is missing")
	case sig.Hash != crypto.SHA256 && sig.Hash != crypto.SHA384 && sig.Hash != crypto.SHA512:
		return fmt.Errorf("uses %s, which the apt of Debian 13 refuses", sig.Hash)
	case sig.CreationTime.After(at):
		return fmt.Errorf("was made at %s, after this publish at %s, so the apt of Debian 13 ignores it", sig.CreationTime.UTC().Format(time.RFC3339), at.UTC().Format(time.RFC3339))
	case sig.SigExpired(at):
		return fmt.Errorf("has expired by %s", at.UTC().Format(time.RFC3339))
	}
	return nil
}
