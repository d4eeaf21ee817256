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

// payloadType marks an in-toto statement inside an envelope.
const payloadType = "application/vnd.in-toto+json"

// Errors about envelopes, for callers that tell them apart.
var (
	// ErrKey says that a key cannot be used.
	ErrKey = errors.New("signing key")
	// ErrSignature says that no signature of an envelope is by the key asked for.
	ErrSignature = errors.New("bad signature")
)

// ProvenanceSigner signs with an Ed25519 key.
type ProvenanceSigner struct{ key ed25519.PrivateKey }

// ProvenanceVerifier checks signatures with the public half of a ProvenanceSigner's key.
type ProvenanceVerifier struct{ key ed25519.PublicKey }

// ParseProvenanceSigner reads a private key in PEM (PKCS #8), as
// `openssl genpkey -algorithm ed25519` writes it.
func ParseProvenanceSigner(text []byte) (*ProvenanceSigner, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("%w: no PEM block of type PRIVATE KEY: make one with `openssl genpkey -algorithm ed25519`", ErrKey)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: a %T, not an Ed25519 key: make one with `openssl genpkey -algorithm ed25519`", ErrKey, key)
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

// Sign signs data, whole and unhashed, as the envelope library asks.
func (s *ProvenanceSigner) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.key, data), nil
}

// Verifier returns the key that checks what the signer signs.
func (s *ProvenanceSigner) Verifier() *ProvenanceVerifier {
	key, _ := s.key.Public().(ed25519.PublicKey) // it is nothing else
	return &ProvenanceVerifier{key: key}
}

// KeyID is the SHA-256 of the public key in PKIX form.
func (s *ProvenanceSigner) KeyID() (string, error) { return dsse.SHA256KeyID(s.key.Public()) }

// Verify checks a signature over data.
func (v *ProvenanceVerifier) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(v.key, data, sig) {
		return ErrSignature
	}
	return nil
}

// KeyID is the SHA-256 of the public key in PKIX form.
func (v *ProvenanceVerifier) KeyID() (string, error) { return dsse.SHA256KeyID(v.key) }

// Public is the key.
func (v *ProvenanceVerifier) Public() crypto.PublicKey { return v.key }

// SignStatement puts a statement into a signed DSSE envelope, as JSON
// (https://github.com/secure-systems-lab/dsse). Ed25519 signs the same bytes the
// same way, so a release that is built twice is sealed the same.
func SignStatement(ctx context.Context, s *Statement, with *ProvenanceSigner) ([]byte, error) {
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProvenance, err)
	}
	signer, err := dsse.NewEnvelopeSigner(with)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	env, err := signer.SignPayload(ctx, payloadType, body)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	out, err := json.MarshalIndent(env, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return append(out, '\n'), nil
}

// OpenEnvelope reads an envelope and gives the statement in it when it was signed by
// the key; nothing of the statement is read before.
func OpenEnvelope(ctx context.Context, r io.Reader, by *ProvenanceVerifier) (*Statement, error) {
	raw, err := io.ReadAll(io.LimitReader(r, 2*maxStatement))
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	var env dsse.Envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	if env.PayloadType != payloadType {
		return nil, fmt.Errorf("unseal: the envelope holds %q, not %s", env.PayloadType, payloadType)
	}
	verifier, err := dsse.NewEnvelopeVerifier(by)
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	if _, err := verifier.Verify(ctx, &env); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	body, err := env.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("unseal: %w", err)
	}
	return ParseStatement(bytes.NewReader(body))
}
