//go:build linux && amd64

package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/release"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

// Files that the provenance does not name are listed, unless they are copies of one
// that it names.
func TestVerifyListsFilesWithoutProvenance(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	dir := filepath.Join(w.dir, "dist")
	if err := os.MkdirAll(filepath.Join(dir, "pool"), 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(name string, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	block := func(kind string, der []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	signer, err := release.ParseProvenanceSigner(block("PRIVATE KEY", der, err))
	if err != nil {
		t.Fatal(err)
	}
	put("go-rocm.deb", []byte("package"))
	sums, err := release.ComputeChecksums(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := release.SignStatement(t.Context(), &release.Statement{
		Type: release.StatementType, PredicateType: release.PredicateType,
		Subject: []release.Resource{{Name: sums[0].Path, Digest: map[string]string{"sha256": sums[0].SHA256}}},
	}, signer)
	if err != nil {
		t.Fatal(err)
	}
	put(release.ProvenanceFile, sealed)
	put("pool/go-rocm.deb", []byte("package"))
	put("pool/earlier.deb", []byte("earlier package"))
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	der, err = x509.MarshalPKIXPublicKey(public)
	key := filepath.Join(w.dir, "public")
	if err := os.WriteFile(key, block("PUBLIC KEY", der, err), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, status := w.output(t, "verify", dir, "--provenance-key", key)
	if !strings.HasSuffix(out, "\nnot in the provenance: pool/earlier.deb\n") || status != 0 {
		t.Errorf("status %d, %q, %s", status, out, errs)
	}
}
