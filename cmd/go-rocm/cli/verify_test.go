//go:build linux && amd64

package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/release"
	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

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
	if err := release.WriteSums(t.Context(), dir); err != nil {
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
