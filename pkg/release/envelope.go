package release

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// payloadType is the payload type of an in-toto statement.
const payloadType = "application/vnd.in-toto+json"

// Errors that the functions of this package wrap.
var (
	// ErrKey reports a key that cannot be used.
	ErrKey = errors.New("signing key")
	// ErrSignature reports that no signature is valid for the trusted key.
	ErrSignature = errors.New("bad signature")
)

// ProvenanceSigner signs a provenance with an Ed25519 key.
type ProvenanceSigner struct{ key ed25519.PrivateKey }

// ProvenanceVerifier verifies the signatures of a ProvenanceSigner.
type ProvenanceVerifier struct{ key ed25519.PublicKey }

// ParseProvenanceSigner reads a private key in PEM (PKCS #8), as
// `openssl genpkey -algorithm ed25519` writes it.
func ParseProvenanceSigner(text []byte) (*ProvenanceSigner, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%w: no PEM block of type PRIVATE KEY: create one with `openssl genpkey -algorithm ed25519`", ErrKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: a %T, not an Ed25519 key: create one with `openssl genpkey -algorithm ed25519`", ErrKey, key)
	}
	return &ProvenanceSigner{key: private}, nil
}

// ParseProvenanceVerifier reads a public key in PEM (PKIX), as `openssl pkey -pubout`
// writes it.
func ParseProvenanceVerifier(text []byte) (*ProvenanceVerifier, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("%w: no PEM block of type PUBLIC KEY: write it with `openssl pkey -pubout`", ErrKey)
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: a %T, not an Ed25519 key", ErrKey, key)
	}
	return &ProvenanceVerifier{key: public}, nil
}

// Sign implements dsse.Signer. It signs data itself, not its hash.
func (s *ProvenanceSigner) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.key, data), nil
}

// Verifier returns the verifier for the signatures of s.
func (s *ProvenanceSigner) Verifier() *ProvenanceVerifier {
	key, _ := s.key.Public().(ed25519.PublicKey) // always this type
	return &ProvenanceVerifier{key: key}
}

// KeyID returns the SHA-256 digest of the public key in PKIX format.
func (s *ProvenanceSigner) KeyID() (string, error) { return dsse.SHA256KeyID(s.key.Public()) }

// Verify implements dsse.Verifier.
func (v *ProvenanceVerifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(v.key, data, sig) {
		return ErrSignature
	}
	return nil
}

// KeyID returns the SHA-256 digest of the public key in PKIX format.
func (v *ProvenanceVerifier) KeyID() (string, error) { return dsse.SHA256KeyID(v.key) }

// Public returns the public key.
func (v *ProvenanceVerifier) Public() crypto.PublicKey { return v.key }

// SignStatement returns a statement in a signed DSSE envelope, as JSON
// (https://github.com/secure-systems-lab/dsse). Ed25519 is deterministic: the same
// statement and key produce the same bytes.
func SignStatement(ctx context.Context, s *Statement, key *ProvenanceSigner) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProvenance, err)
	}
	signer, err := dsse.NewEnvelopeSigner(key)
	if err != nil {
		return nil, fmt.Errorf("sign the statement: %w", err)
	}
	env, err := signer.SignPayload(ctx, payloadType, body)
	if err != nil {
		return nil, fmt.Errorf("sign the statement: %w", err)
	}
	out, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("sign the statement: %w", err)
	}
	return append(out, '\n'), nil
}

// OpenEnvelope verifies the signature of an envelope and returns the statement in
// it. It does not parse the statement before the signature is verified.
func OpenEnvelope(ctx context.Context, r io.Reader, key *ProvenanceVerifier) (*Statement, error) {
	raw, err := io.ReadAll(io.LimitReader(r, 2*maxStatement))
	if err != nil {
		return nil, fmt.Errorf("read the envelope: %w", err)
	}
	var env dsse.Envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("read the envelope: %w", err)
	}
	if env.PayloadType != payloadType {
		return nil, fmt.Errorf("read the envelope: the payload type is %q, not %s", env.PayloadType, payloadType)
	}
	verifier, err := dsse.NewEnvelopeVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("read the envelope: %w", err)
	}
	if _, err := verifier.Verify(ctx, &env); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	body, err := env.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("read the envelope: %w", err)
	}
	return ParseStatement(bytes.NewReader(body))
}
