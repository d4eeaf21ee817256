package release_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"forge.lthn.ai/core/go-rocm/pkg/release"
)

// golden is a provenance written by packaging/attest.
const golden = "../../packaging/attest/testdata/provenance.json"

func statement(t *testing.T) *release.Statement {
	t.Helper()
	f, err := os.Open(golden)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	s, err := release.ParseStatement(f)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// keyPair derives a key pair from a seed, so that signatures are reproducible.
func keyPair(t *testing.T, seed byte) (*release.ProvenanceSigner, *release.ProvenanceVerifier, []byte) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s, err := release.ParseProvenanceSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	v, err := release.ParseProvenanceVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v, public
}

func TestEnvelopeRoundTripsAndRejectsChanges(t *testing.T) {
	t.Parallel()
	signer, verifier, _ := keyPair(t, 1)
	s := statement(t)
	sealed, err := release.SignStatement(t.Context(), s, signer)
	if err != nil {
		t.Fatal(err)
	}
	second, err := release.SignStatement(t.Context(), s, signer)
	if err != nil || !bytes.Equal(sealed, second) {
		t.Errorf("the second signature differs: %v", err)
	}
	got, err := release.OpenEnvelope(t.Context(), bytes.NewReader(sealed), verifier)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("statement:\n%s", diff)
	}

	_, stranger, _ := keyPair(t, 2)
	if _, err := release.OpenEnvelope(t.Context(), bytes.NewReader(sealed), stranger); !errors.Is(err, release.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	var env map[string]any
	if err := json.Unmarshal(sealed, &env); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(env["payload"].(string)) //nolint:errcheck,forcetypeassert // a wrong type fails the test
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(map[string]any){
		"changed statement": func(e map[string]any) {
			e["payload"] = base64.StdEncoding.EncodeToString(bytes.ReplaceAll(payload, []byte("1111"), []byte("3333")))
		},
		"no signature":  func(e map[string]any) { e["signatures"] = []any{} },
		"another type":  func(e map[string]any) { e["payloadType"] = "text/plain" },
		"no payload":    func(e map[string]any) { delete(e, "payload") },
		"odd signature": func(e map[string]any) { e["signatures"] = []any{map[string]any{"keyid": "", "sig": "AAAA"}} },
	} {
		t.Run(name, func(t *testing.T) {
			var e map[string]any
			if err := json.Unmarshal(sealed, &e); err != nil {
				t.Fatal(err)
			}
			change(e)
			text, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := release.OpenEnvelope(t.Context(), bytes.NewReader(text), verifier); err == nil {
				t.Errorf("accepted: %+v", s)
			}
		})
	}
}

func TestEnvelopeVerifiesWithOpenSSL(t *testing.T) {
	t.Parallel()
	signer, _, public := keyPair(t, 1)
	sealed, err := release.SignStatement(t.Context(), statement(t), signer)
	if err != nil {
		t.Fatal(err)
	}
	var env struct {
		PayloadType, Payload string
		Signatures           []struct{ Sig []byte }
	}
	if err := json.Unmarshal(sealed, &env); err != nil {
		t.Fatal(err)
	}
	payload, err := base64.StdEncoding.DecodeString(env.Payload)
	if err != nil {
		t.Fatal(err)
	}
	signed := []byte("DSSEv1 28 application/vnd.in-toto+json " + itoa(len(payload)) + " " + string(payload))
	dir := t.TempDir()
	for name, b := range map[string][]byte{"pub": public, "signed": signed, "sig": env.Signatures[0].Sig} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "signed", "-sigfile", "sig")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("openssl: %v\n%s", err, out)
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) } //nolint:errchkjson // a number

func TestParseProvenanceKeysReject(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"nothing":  "",
		"not PEM":  "key",
		"not PKCS": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"other":    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := release.ParseProvenanceSigner([]byte(text)); !errors.Is(err, release.ErrKey) {
				t.Errorf("private: %v", err)
			}
			if _, err := release.ParseProvenanceVerifier([]byte(text)); !errors.Is(err, release.ErrKey) {
				t.Errorf("public: %v", err)
			}
		})
	}
}

func FuzzParseStatement(f *testing.F) {
	seed, err := os.ReadFile(golden)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := release.ParseStatement(bytes.NewReader(text))
		if err != nil {
			return
		}
		second, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := release.ParseStatement(bytes.NewReader(second)); err != nil {
			t.Errorf("the parsed statement is rejected: %v", err)
		}
	})
}
