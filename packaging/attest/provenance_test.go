package attest_test

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
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/packaging/attest"
	"github.com/google/go-cmp/cmp"
)

// keys makes a key pair of a seed, so that signatures are the same in each run.
func keys(t *testing.T, seed byte) (*attest.Signer, *attest.Verifier, []byte) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s, err := attest.ParseSigner(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	if der, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	v, err := attest.ParseVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	return s, v, public
}

var subjects = []attest.Sum{{SHA256: strings.Repeat("1", 64), Path: "go-rocm"}, {SHA256: strings.Repeat("2", 64), Path: "go-rocm.deb"}}

func statement(t *testing.T) *attest.Statement {
	t.Helper()
	s, err := attest.Provenance(material(t), subjects, strings.Repeat("e", 40), "https://example.test/builder")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestProvenance(t *testing.T) {
	s := statement(t)
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "provenance.json", append(text, '\n'))
	back, err := attest.ParseStatement(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, back); diff != "" {
		t.Errorf("reading what was written differs:\n%s", diff)
	}
	if err := s.Covers(subjects[1]); err != nil {
		t.Error(err)
	}
	for want, sum := range map[string]attest.Sum{
		"does not name other": {SHA256: subjects[0].SHA256, Path: "other"},
		"is about 1111":       {SHA256: strings.Repeat("3", 64), Path: "go-rocm"},
	} {
		if err := s.Covers(sum); !errors.Is(err, attest.ErrProvenance) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want one that says %q", err, want)
		}
	}
}

func TestSealAndUnseal(t *testing.T) {
	signer, verifier, _ := keys(t, 1)
	s := statement(t)
	sealed, err := attest.Seal(t.Context(), s, signer)
	if err != nil {
		t.Fatal(err)
	}
	again, err := attest.Seal(t.Context(), s, signer)
	if err != nil || !bytes.Equal(sealed, again) {
		t.Errorf("sealing twice differs: %v", err)
	}
	got, err := attest.Unseal(t.Context(), bytes.NewReader(sealed), verifier)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("statement:\n%s", diff)
	}

	_, stranger, _ := keys(t, 2)
	if _, err := attest.Unseal(t.Context(), bytes.NewReader(sealed), stranger); !errors.Is(err, attest.ErrSignature) {
		t.Errorf("another's key: %v", err)
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
			if s, err := attest.Unseal(t.Context(), bytes.NewReader(text), verifier); err == nil {
				t.Errorf("accepted: %+v", s)
			}
		})
	}
}

// openssl, which receivers have, checks the signature by itself.
func TestOpenSSLVerifiesTheEnvelope(t *testing.T) {
	signer, _, public := keys(t, 1)
	sealed, err := attest.Seal(t.Context(), statement(t), signer)
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

func TestParseKeysRefuse(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":  "",
		"not PEM":  "key",
		"not PKCS": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"other":    "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := attest.ParseSigner([]byte(text)); !errors.Is(err, attest.ErrKey) {
				t.Errorf("private: %v", err)
			}
			if _, err := attest.ParseVerifier([]byte(text)); !errors.Is(err, attest.ErrKey) {
				t.Errorf("public: %v", err)
			}
		})
	}
}

func FuzzParseStatement(f *testing.F) {
	seed, err := os.ReadFile(filepath.Join("testdata", "provenance.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"_type":"https://in-toto.io/Statement/v1"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := attest.ParseStatement(bytes.NewReader(text))
		if err != nil {
			return
		}
		again, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := attest.ParseStatement(bytes.NewReader(again)); err != nil {
			t.Errorf("its own form is refused: %v", err)
		}
	})
}
