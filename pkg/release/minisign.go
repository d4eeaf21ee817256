package release

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"aead.dev/minisign"
)

// MinisignSigner signs as minisign does (https://jedisct1.github.io/minisign/).
type MinisignSigner struct{ key minisign.PrivateKey }

// MinisignVerifier verifies signatures with a public key of minisign.
type MinisignVerifier struct{ key minisign.PublicKey }

// ParseMinisignSigner parses a private key file of minisign and decrypts it with
// the password. A key created with -W has none.
func ParseMinisignSigner(text []byte, password string) (*MinisignSigner, error) {
	if !minisign.IsEncrypted(text) {
		var key minisign.PrivateKey
		if err := key.UnmarshalText(text); err != nil {
			return nil, fmt.Errorf("%w: minisign: %w: create one with `minisign -G`", ErrKey, err)
		}
		return &MinisignSigner{key: key}, nil
	}
	key, err := minisign.DecryptKey(password, text)
	if err != nil {
		return nil, fmt.Errorf("%w: minisign: %w: check the password", ErrKey, err)
	}
	return &MinisignSigner{key: key}, nil
}

// Verifier returns the verifier for the signatures of s.
func (s *MinisignSigner) Verifier() *MinisignVerifier {
	key, _ := s.key.Public().(minisign.PublicKey) // always this type
	return &MinisignVerifier{key: key}
}

// ParseMinisignVerifier parses a public key file of minisign, or only the base64
// line in it.
func ParseMinisignVerifier(text []byte) (*MinisignVerifier, error) {
	var key minisign.PublicKey
	if err := key.UnmarshalText([]byte(strings.TrimSpace(string(text)))); err != nil {
		return nil, fmt.Errorf("%w: minisign: %w", ErrKey, err)
	}
	return &MinisignVerifier{key: key}, nil
}

// Sign returns the contents of a .minisig file. The signature also covers comment,
// which is one line. The same message and comment produce the same bytes.
//
// It uses the prehashed algorithm, like minisign itself.
func (s *MinisignSigner) Sign(message []byte, comment string) ([]byte, error) {
	r := minisign.NewReader(bytes.NewReader(message))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fmt.Errorf("minisign: %w", err)
	}
	return r.SignWithComments(s.key, comment, "signature of go-rocm"), nil
}

// Verify verifies the .minisig file of a message. It returns ErrSignature if the
// signature is invalid.
func (k *MinisignVerifier) Verify(message, signature []byte) error {
	// minisign.Verify hashes the message if the signature's algorithm requires it.
	// minisign.Reader hashes it always, and so accepts a signature with the other
	// algorithm, which minisign itself rejects.
	if !minisign.Verify(k.key, message, signature) {
		return fmt.Errorf("%w: not signed by the key %X", ErrSignature, k.key.ID())
	}
	return nil
}
