//go:build linux && amd64

package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"forge.lthn.ai/core/go-rocm/pkg/gfx"
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

// The embedded and the installed bundle, which the scripts do not have, are
// verified as files and directories are: damage is reported once, with its place
// and the remedy.
func TestVerifyEmbeddedAndInstalled(t *testing.T) {
	dir := t.TempDir()
	pack := filepath.Join(dir, "b.tar.zst")
	if err := packBundle(pack, "v1"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(raw)
	damaged[len(damaged)/2] ^= 0x40
	unpack := func(name string, targets []gfx.Target) string {
		path := filepath.Join(dir, name)
		if err := unpackBundle(path, pack, targets); err != nil {
			t.Fatal(err)
		}
		return path
	}
	complete, changed, partial := unpack("complete", nil), unpack("changed", nil), unpack("partial", []gfx.Target{"gfx1100"})
	if err := os.WriteFile(filepath.Join(changed, "k_gfx1100.co"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	embedded := func(packed []byte) func(context.Context, io.Writer) error {
		fsys := fstest.MapFS{"payload/README": {}}
		if packed != nil {
			fsys["payload/llama-hip.tar.zst.000"] = &fstest.MapFile{Data: packed}
		}
		return func(ctx context.Context, out io.Writer) error { return verifyEmbedded(ctx, out, fs.FS(fsys)) }
	}
	installed := func(dir string) func(context.Context, io.Writer) error {
		return func(ctx context.Context, out io.Writer) error { return verifyInstalled(ctx, out, dir) }
	}
	const remedy = "fetch, install or build it again"
	for _, tc := range []struct {
		name   string
		verify func(context.Context, io.Writer) error
		want   []string // parts of the error, each once; nil: the bundle is complete
		absent string
	}{
		{"embedded", embedded(raw), nil, ""},
		{"embedded and damaged", embedded(damaged), []string{"verify the embedded hip bundle: ", "bad bundle content: ", remedy}, ""},
		{"not embedded", embedded(nil), []string{"no bundle is embedded in this program", "--installed"}, "GOROCM_BUNDLE"},
		{"installed", installed(complete), nil, ""},
		{"installed and changed", installed(changed), []string{"verify " + changed, "1 places:\n", "\n  k_gfx1100.co: sha256 is", remedy}, ""},
		{"installed for one target", installed(partial), []string{"verify " + partial, "\n  k_gfx1101.co: missing", remedy}, ""},
		{"not installed", installed(filepath.Join(dir, "llama")), []string{"no bundle is installed in", "go-rocm-llama-hip"}, "no such file"},
	} {
		var out bytes.Buffer
		err := tc.verify(t.Context(), &out)
		if tc.want == nil {
			if err != nil || !strings.HasPrefix(out.String(), "llama-test v1 is complete: 4 files") {
				t.Errorf("%s: %q, %v", tc.name, out.String(), err)
			}
			continue
		}
		text := fmt.Sprint(err)
		for _, want := range tc.want {
			if strings.Count(text, want) != 1 {
				t.Errorf("%s: %q does not occur once: %s", tc.name, want, text)
			}
		}
		if out.Len() > 0 || tc.absent != "" && strings.Contains(text, tc.absent) {
			t.Errorf("%s: %q, %s", tc.name, out.String(), text)
		}
	}
}
