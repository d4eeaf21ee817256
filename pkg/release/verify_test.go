package release_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
	"forge.lthn.ai/core/go-rocm/pkg/release"
	"forge.lthn.ai/core/go-rocm/testing/ctxtest"
	"forge.lthn.ai/core/go-rocm/testing/filetree"
)

// published writes a release of three files with a minisign signature and a
// provenance.
func published(t *testing.T) (dir string, keys release.TrustedKeys) {
	t.Helper()
	dir = filetree.Write(t, map[string]string{"go-rocm": "program", "go-rocm.deb": "package", "apt/Release": "index"})
	sums, err := release.ComputeChecksums(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s := statement(t)
	s.Subject = nil
	for _, sum := range sums {
		s.Subject = append(s.Subject, release.Resource{Name: sum.Path, Digest: map[string]string{"sha256": sum.SHA256}})
	}
	signer, verifier, _ := keyPair(t, 1)
	sealed, err := release.SignStatement(t.Context(), s, signer)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, release.ProvenanceFile), sealed)
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	mini, key := minisignPair(t, "plain", "")
	list, err := os.ReadFile(filepath.Join(dir, release.ChecksumsFile))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := mini.Sign(list, "go-rocm 1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, release.MinisignFile), sig)
	return dir, release.TrustedKeys{Minisign: key, Provenance: verifier}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyReportsFilesAndSignatures(t *testing.T) {
	t.Parallel()
	dir, keys := published(t)
	r, err := release.Verify(t.Context(), dir, keys)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{release.MinisignFile, release.ProvenanceFile}; len(r.Files) != 4 || !slices.Equal(r.Signatures, want) {
		t.Errorf("got %+v", r)
	}
	write(t, filepath.Join(dir, "module.zip"), []byte("of an earlier release"))
	write(t, filepath.Join(dir, "apt", "copy.deb"), []byte("package")) // of go-rocm.deb, as in a pool
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	r, err = release.Verify(t.Context(), dir, release.TrustedKeys{Provenance: keys.Provenance})
	if err != nil || !slices.Equal(r.Unattested, []string{"module.zip"}) {
		t.Errorf("a file that was not built: %+v, %v", r, err)
	}
	if _, err := release.VerifyFile(t.Context(), filepath.Join(dir, "module.zip"), release.TrustedKeys{Provenance: keys.Provenance}); !errors.Is(err, release.ErrProvenance) {
		t.Errorf("that file: %v", err)
	}
	keys.Minisign = nil // the list is another now
	for _, name := range []string{"go-rocm", "apt/Release", "apt/copy.deb", release.ProvenanceFile} {
		r, err := release.VerifyFile(t.Context(), filepath.Join(dir, name), keys)
		if err != nil || !slices.Equal(r.Files, []string{name}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// Cancelling the context stops the reading within a large file.
func TestVerifyStopsWhenCancelled(t *testing.T) {
	t.Parallel()
	dir := filetree.Write(t, map[string]string{"large": strings.Repeat("x", 1<<20)})
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	for name, read := range map[string]func(context.Context) error{
		"the release": func(ctx context.Context) error { _, err := release.Verify(ctx, dir, release.TrustedKeys{}); return err },
		"one file": func(ctx context.Context) error {
			_, err := release.VerifyFile(ctx, filepath.Join(dir, "large"), release.TrustedKeys{})
			return err
		},
		"measuring": func(ctx context.Context) error { return release.WriteChecksums(ctx, dir) },
	} {
		if err := read(ctxtest.Ends(t, 3)); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestVerifyRejects(t *testing.T) {
	t.Parallel()
	strangerMini := minisignKey(t, "locked")
	_, strangerKey, _ := keyPair(t, 2)
	for name, tt := range map[string]struct {
		spoil func(t *testing.T, dir string, keys *release.TrustedKeys)
		want  error
		text  string
	}{
		"a changed file": {func(t *testing.T, dir string, _ *release.TrustedKeys) {
			write(t, filepath.Join(dir, "go-rocm"), []byte("x"))
		}, nil, "changed: go-rocm"},
		"an additional file": {func(t *testing.T, dir string, _ *release.TrustedKeys) { write(t, filepath.Join(dir, "more"), nil) }, nil, "not listed: more"},
		"an edited list":     {func(t *testing.T, dir string, _ *release.TrustedKeys) { relist(t, dir) }, release.ErrSignature, release.MinisignFile},
		"no list": {func(t *testing.T, dir string, _ *release.TrustedKeys) {
			remove(t, filepath.Join(dir, release.ChecksumsFile))
		}, release.ErrChecksums, ""},
		"no signature": {func(t *testing.T, dir string, _ *release.TrustedKeys) {
			remove(t, filepath.Join(dir, release.MinisignFile))
		}, release.ErrUnsigned, release.MinisignFile},
		"another key's signature":  {func(_ *testing.T, _ string, k *release.TrustedKeys) { k.Minisign = strangerMini }, release.ErrSignature, "not signed by the key"},
		"another key's provenance": {func(_ *testing.T, _ string, k *release.TrustedKeys) { k.Provenance = strangerKey }, release.ErrSignature, release.ProvenanceFile},
		"no provenance": {func(t *testing.T, dir string, k *release.TrustedKeys) {
			k.Minisign = nil
			remove(t, filepath.Join(dir, release.ProvenanceFile))
			relist(t, dir)
		}, release.ErrUnsigned, release.ProvenanceFile},
		"a built file is missing": {func(t *testing.T, dir string, k *release.TrustedKeys) {
			k.Minisign = nil
			remove(t, filepath.Join(dir, "go-rocm.deb"))
			if err := release.WriteChecksums(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
		}, nil, "missing: go-rocm.deb"},
		"a file of another build": {func(t *testing.T, dir string, k *release.TrustedKeys) { k.Minisign = nil; relist(t, dir) }, release.ErrProvenance, "go-rocm has sha256"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, keys := published(t)
			tt.spoil(t, dir, &keys)
			_, err := release.Verify(t.Context(), dir, keys)
			var sums *release.ChecksumError
			if tt.want == nil && !errors.As(err, &sums) || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v", err)
			}
			if name == "an additional file" || strings.HasSuffix(name, "is missing") {
				return // the other files are valid
			}
			if _, err := release.VerifyFile(t.Context(), filepath.Join(dir, "go-rocm"), keys); err == nil {
				t.Error("VerifyFile accepted the file")
			}
		})
	}
	dir, keys := published(t)
	write(t, filepath.Join(dir, "more"), nil)
	if _, err := release.VerifyFile(t.Context(), filepath.Join(dir, "more"), keys); err == nil || !strings.Contains(err.Error(), "not listed: more") {
		t.Errorf("an unlisted file: %v", err)
	}
	pipe := filepath.Join(dir, "go-rocm.deb") // opening it would wait for a writer
	remove(t, pipe)
	if err := mkfifo(pipe); err != nil {
		t.Fatal(err)
	}
	if _, err := release.VerifyFile(t.Context(), pipe, keys); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO: %v", err)
	}
	if _, err := release.VerifyFile(t.Context(), filepath.Join(t.TempDir(), "x"), keys); !errors.Is(err, release.ErrChecksums) {
		t.Errorf("a file without a release: %v", err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

// No file may stop the verification: a FIFO has no writer, and a sparse file has any
// size.
func TestVerifyRejectsSpecialAndHugeFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{release.ChecksumsFile, release.MinisignFile, release.ProvenanceFile} {
		for kind, tt := range map[string]struct {
			plant func(path string) error
			want  error
		}{
			"FIFO":      {mkfifo, regfile.ErrNotRegular},
			"directory": {func(path string) error { return os.Mkdir(path, 0o700) }, regfile.ErrNotRegular},
			"huge": {func(path string) error {
				return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 100<<30))
			}, regfile.ErrTooLarge},
		} {
			if name == release.ProvenanceFile && kind == "huge" {
				continue // it is hashed, as every listed file is
			}
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				dir, keys := published(t)
				path := filepath.Join(dir, name)
				remove(t, path)
				if err := tt.plant(path); err != nil {
					t.Fatal(err)
				}
				if _, err := release.VerifyFile(t.Context(), filepath.Join(dir, "go-rocm"), keys); !errors.Is(err, tt.want) {
					t.Errorf("VerifyFile: %v", err)
				}
				if _, err := release.Verify(t.Context(), dir, keys); err == nil {
					t.Error("Verify accepted it")
				}
			})
		}
	}
}

// Every file must be listed, whatever its name, except the list and its signatures.
func TestVerifyRejectsUnlistedNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{".hidden", ".hidden/program", "apt/.hidden", release.ChecksumsFile + ".sh", release.ChecksumsFile + ".d/x", "apt/" + release.ChecksumsFile, release.MinisignFile + ".sh", "apt/" + release.MinisignFile} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, keys := published(t)
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, path, []byte("evil"))
			var diff *release.ChecksumError
			if _, err := release.Verify(t.Context(), dir, keys); !errors.As(err, &diff) || !slices.Equal(diff.Unlisted, []string{name}) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// relist changes a file and the list, as an attacker would.
func relist(t *testing.T, dir string) {
	t.Helper()
	write(t, filepath.Join(dir, "go-rocm"), []byte("evil"))
	if err := release.WriteChecksums(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
}

func TestParseStatementIsStrict(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(statement(t))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"unknown field": strings.Replace(string(b), `{"_type"`, `{"colour":1,"_type"`, 1),
		"more":          string(b) + "{}",
		"no digest":     strings.Replace(string(b), `"sha256":`, `"sha1":`, 1),
	} {
		if _, err := release.ParseStatement(strings.NewReader(text)); !errors.Is(err, release.ErrProvenance) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
