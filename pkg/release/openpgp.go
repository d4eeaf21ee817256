package release

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// OpenPGPVerifier are public keys of OpenPGP (RFC 9580), any of which may have
// signed.
type OpenPGPVerifier struct{ entities openpgp.EntityList }

// ReadKeyRing reads OpenPGP keys, public or private, armoured or not; several
// armoured blocks may follow each other. A text without a key gives none.
func ReadKeyRing(text []byte) (openpgp.EntityList, error) {
	if !bytes.Contains(text, []byte("-----BEGIN PGP")) {
		return openpgp.ReadKeyRing(bytes.NewReader(text))
	}
	var keys openpgp.EntityList
	// One buffered reader: the decoder would make its own for each block, and
	// take the beginning of the next one with it.
	for r := bufio.NewReader(bytes.NewReader(text)); ; {
		block, err := armor.Decode(r)
		if errors.Is(err, io.EOF) {
			return keys, nil
		}
		if err != nil {
			return nil, err
		}
		if block.Type != openpgp.PrivateKeyType && block.Type != openpgp.PublicKeyType {
			return nil, fmt.Errorf("a block of %s is no key", block.Type)
		}
		list, err := openpgp.ReadKeyRing(block.Body)
		if err != nil {
			return nil, err
		}
		keys = append(keys, list...)
	}
}

// ParseOpenPGPVerifier reads public keys as `gpg --export` writes them, armoured or
// not.
func ParseOpenPGPVerifier(text []byte) (*OpenPGPVerifier, error) {
	keys, err := ReadKeyRing(text)
	if err == nil && len(keys) == 0 {
		err = errors.New("there is no key in it")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: OpenPGP: %w: give the output of `gpg --armor --export NAME`", ErrKey, err)
	}
	return &OpenPGPVerifier{entities: keys}, nil
}

// Verify checks an armoured detached signature over message by one of the keys,
// as of now; it is ErrSignature otherwise. A key that has expired or was revoked
// does not count, also for what was signed before: whoever has it can choose the
// date of a signature. Nor does a signature over a digest by SHA-1 or MD5.
func (k *OpenPGPVerifier) Verify(message, signature []byte) error {
	var errs []error
	for _, key := range k.entities {
		_, err := openpgp.CheckArmoredDetachedSignature(openpgp.EntityList{key}, bytes.NewReader(message), bytes.NewReader(signature), nil)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, io.EOF):
			err = errors.New("it is no armoured signature")
		}
		errs = append(errs, fmt.Errorf("not by the key %X: %w", key.PrimaryKey.Fingerprint, err))
	}
	return fmt.Errorf("%w: %w", ErrSignature, errors.Join(errs...))
}
