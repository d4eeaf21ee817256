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

// MinisignVerifier is a public key of minisign.
type MinisignVerifier struct{ key minisign.PublicKey }

// ParseMinisignSigner reads a private key file of minisign and opens it with its
// password. A key made with -W has none.
func ParseMinisignSigner(text []byte, password string) (*MinisignSigner, error) {
	if !minisign.IsEncrypted(text) {
		var key minisign.PrivateKey
		if err := key.UnmarshalText(text); err != nil {
			return nil, fmt.Errorf("%w: minisign: %w: make one with `minisign -G`", ErrKey, err)
		}
		return &MinisignSigner{key: key}, nil
	}
	key, err := minisign.DecryptKey(password, text)
	if err != nil {
		return nil, fmt.Errorf("%w: minisign: %w: is the password right?", ErrKey, err)
	}
	return &MinisignSigner{key: key}, nil
}

// Verifier returns the key that checks what the signer signs.
func (s *MinisignSigner) Verifier() *MinisignVerifier {
	key, _ := s.key.Public().(minisign.PublicKey) // it is nothing else
	return &MinisignVerifier{key: key}
}

// ParseMinisignVerifier reads a public key file of minisign, or its one line of
// base64.
func ParseMinisignVerifier(text []byte) (*MinisignVerifier, error) {
	var key minisign.PublicKey
	if err := key.UnmarshalText([]byte(strings.TrimSpace(string(text)))); err != nil {
		return nil, fmt.Errorf("%w: minisign: %w", ErrKey, err)
	}
	return &MinisignVerifier{key: key}, nil
}

// Sign gives the content of a .minisig file. comment, one line, is signed too.
// The same message and comment give the same bytes.
//
// It is the hashed form, which minisign itself writes.
func (s *MinisignSigner) Sign(message []byte, comment string) ([]byte, error) {
	r := minisign.NewReader(bytes.NewReader(message))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return nil, fmt.Errorf("minisign: %w", err)
	}
	return r.SignWithComments(s.key, comment, "signature of go-rocm"), nil
}

// Verify checks a .minisig file over message; it is ErrSignature otherwise.
func (k *MinisignVerifier) Verify(message, signature []byte) error {
	r := minisign.NewReader(bytes.NewReader(message))
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("minisign: %w", err)
	}
	if !r.Verify(k.key, signature) {
		return fmt.Errorf("%w: not by the key %X", ErrSignature, k.key.ID())
	}
	return nil
}
