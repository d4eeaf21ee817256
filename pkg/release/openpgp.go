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

// OpenPGPVerifier verifies signatures with OpenPGP keys (RFC 9580), any of which may
// have signed.
type OpenPGPVerifier struct{ entities openpgp.EntityList }

// ReadKeyRing reads public or private OpenPGP keys, armoured or not; several
// armoured blocks may follow each other. Without a key it returns an empty list.
func ReadKeyRing(text []byte) (openpgp.EntityList, error) {
	if !bytes.Contains(text, []byte("-----BEGIN PGP")) {
		return openpgp.ReadKeyRing(bytes.NewReader(text))
	}
	var keys openpgp.EntityList
	// A shared buffered reader: the decoder would create one for each block, which
	// would consume the beginning of the next block.
	for r := bufio.NewReader(bytes.NewReader(text)); ; {
		block, err := armor.Decode(r)
		if errors.Is(err, io.EOF) {
			return keys, nil
		}
		if err != nil {
			return nil, err
		}
		if block.Type != openpgp.PrivateKeyType && block.Type != openpgp.PublicKeyType {
			return nil, fmt.Errorf("a block of type %s is not a key", block.Type)
		}
		list, err := openpgp.ReadKeyRing(block.Body)
		if err != nil {
			return nil, err
		}
		keys = append(keys, list...)
	}
}

// ParseOpenPGPVerifier parses the output of `gpg --export`, armoured or not.
func ParseOpenPGPVerifier(text []byte) (*OpenPGPVerifier, error) {
	keys, err := ReadKeyRing(text)
	if err == nil && len(keys) == 0 {
		err = errors.New("it contains no key")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: OpenPGP: %w: use the output of `gpg --armor --export NAME`", ErrKey, err)
	}
	return &OpenPGPVerifier{entities: keys}, nil
}

// Verify verifies an armoured detached signature of message by one of the keys, as
// of now. It returns ErrSignature if the signature is invalid. It rejects keys that
// have expired or were revoked, even for earlier signatures, because whoever has the
// key can choose the date of a signature. It also rejects SHA-1 and MD5 digests.
func (k *OpenPGPVerifier) Verify(message, signature []byte) error {
	var errs []error
	for _, key := range k.entities {
		_, err := openpgp.CheckArmoredDetachedSignature(openpgp.EntityList{key}, bytes.NewReader(message), bytes.NewReader(signature), nil)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, io.EOF):
			err = errors.New("it is not an armoured signature")
		}
		errs = append(errs, fmt.Errorf("not signed by the key %X: %w", key.PrimaryKey.Fingerprint, err))
	}
	return fmt.Errorf("%w: %w", ErrSignature, errors.Join(errs...))
}
