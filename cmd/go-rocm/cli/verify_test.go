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

// What the provenance says nothing of is listed; a copy of what it is about is not.
func TestVerifyListsWhatTheProvenanceDoesNotName(t *testing.T) {
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
	out, errs, status := w.output(t, "", "verify", dir, "--provenance-key", key)
	if !strings.HasSuffix(out, "\nnot named by the provenance: pool/earlier.deb\n") || status != 0 {
		t.Errorf("status %d, %q, %s", status, out, errs)
	}
}

func TestVerifyRelease(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	dir := filepath.Join(w.dir, "dist")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := put("go-rocm", "program")
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	key, err := filepath.Abs("../../../pkg/release/testdata/minisign/plain.pub")
	if err != nil {
		t.Fatal(err)
	}
	openPGP, err := filepath.Abs("../../../pkg/release/testdata/openpgp/signer.asc")
	if err != nil {
		t.Fatal(err)
	}
	check := func(name string, status int, want string, args ...string) {
		t.Helper()
		out, errs, got := w.output(t, "", append([]string{"verify"}, args...)...)
		if got != status || !strings.Contains(out+errs, want) {
			t.Errorf("%s: status %d, %q, %s", name, got, out, errs)
		}
	}
	check("folder", 0, "1 files as in SHA256SUMS, not checked for a signature", dir)
	check("file", 0, "1 files as in SHA256SUMS", program)
	check("unsigned", exitFailure, "not signed: there is no SHA256SUMS.minisig", dir, "--minisign-key", key)
	check("no key", exitFailure, "--minisign-key: open /no/such", dir, "--minisign-key", "/no/such")
	check("no OpenPGP signature", exitFailure, "not signed: there is no SHA256SUMS.asc", dir, "--openpgp-key", openPGP)
	check("no OpenPGP key", exitFailure, "gpg --armor --export", dir, "--openpgp-key", key)
	check("provenance", exitFailure, "no PEM block", dir, "--provenance-key", key)
	check("key without a release", exitUsage, "keys are for the files of a release", "--embedded", "--minisign-key", key)
	check("bundle's folder with a key", exitFailure, "not the folder of a release", filepath.Join(w.dir, "models"), "--minisign-key", key)
	check("neither", exitFailure, "neither a packed bundle", w.model)
	put("go-rocm", "virus")
	check("changed folder", exitFailure, "changed: go-rocm", dir)
	check("changed file", exitFailure, "changed: go-rocm", program)
}
