package build

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/docker/recipe"
	"forge.lthn.ai/core/go-rocm/docker/stage"
	"forge.lthn.ai/core/go-rocm/internal/build/settings"
	"forge.lthn.ai/core/go-rocm/pkg/release"
)

const minisignKeys = "../../pkg/release/testdata/minisign"

// openPGPKey returns an armoured private key that is a day old.
func openPGPKey(t *testing.T) string {
	t.Helper()
	e, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return time.Now().AddDate(0, 0, -1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PrivateKeyType, nil)
	if err == nil {
		err = errors.Join(e.SerializePrivateWithoutSigning(w, nil), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// provenanceKey writes a key in the format of openssl and returns its path.
func provenanceKey(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "provenance")
	writeFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return path
}

// privateCopy copies a file to one that only its owner may read, as a checkout's are
// not.
func privateCopy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), filepath.Base(name)), string(text))
}

// allKeys returns the settings of a release with every key.
func allKeys(t *testing.T) []string {
	t.Helper()
	return []string{
		"GOROCM_MINISIGN_KEY=" + privateCopy(t, filepath.Join(minisignKeys, "plain.key")), "GOROCM_SIGNING_KEY=" + provenanceKey(t),
		"GOROCM_APT_KEY=" + openPGPKey(t), "GOROCM_APT_URL=https://example.org/apt",
	}
}

// provenanceFor returns a step that writes a signed statement about the delivery.
func provenanceFor(s *Session) func(context.Context, *delivery) error {
	return func(ctx context.Context, d *delivery) error {
		subjects, err := release.ComputeChecksums(ctx, d.dir)
		if err != nil {
			return err
		}
		statement := &release.Statement{Type: release.StatementType, PredicateType: release.PredicateType}
		for _, sum := range subjects {
			statement.Subject = append(statement.Subject, release.Resource{Name: sum.Path, Digest: map[string]string{"sha256": sum.SHA256}})
		}
		signer, err := s.provenanceSigner()
		if err != nil {
			return err
		}
		envelope, err := release.SignStatement(ctx, statement, signer)
		if err != nil {
			return err
		}
		return writePublic(filepath.Join(d.dir, release.ProvenanceFile), envelope)
	}
}

// A release has the signature of each key of the settings, or it is not delivered.
func TestReleaseNeedsEverySignature(t *testing.T) {
	lock, err := recipe.SourceLock()
	if err != nil {
		t.Fatal(err)
	}
	for _, lost := range []string{"", release.MinisignFile, release.OpenPGPFile, release.ProvenanceFile} {
		t.Run(cmp.Or(lost, "nothing")+" lost", func(t *testing.T) {
			dist := filepath.Join(t.TempDir(), "dist")
			s, _ := newSession(t, append(allKeys(t), "GOROCM_DIST="+dist, "GOROCM_BASE_IMAGE=none", "CI=false")...)
			s.Recipe.Lock = lock
			program := func(_ context.Context, d *delivery) error {
				return os.WriteFile(filepath.Join(d.dir, "go-rocm"), []byte("program"), 0o600)
			}
			lose := func(_ context.Context, d *delivery) error {
				if lost == "" {
					return nil
				}
				return os.Remove(filepath.Join(d.dir, lost))
			}
			steps := []step{program, provenanceFor(s), s.checksumInto, lose, s.verifyRelease}
			if lost == release.ProvenanceFile { // removing it would make the list wrong too
				steps = []step{program, s.checksumInto, s.verifyRelease}
			}
			err := s.deliver(t.Context(), nil, steps...)
			if lost == "" {
				if said := s.Out.(*bytes.Buffer).String(); err != nil || !strings.Contains(said, "signed: SHA256SUMS.minisig, SHA256SUMS.asc, provenance.dsse.json") { //nolint:errcheck,forcetypeassert // newSession made it
					t.Errorf("got %v, said %q", err, said)
				}
				return
			}
			if !errors.Is(err, release.ErrUnsigned) || !strings.Contains(err.Error(), lost) {
				t.Errorf("got %v", err)
			}
			for _, dir := range []string{dist, dist + ".part"} {
				if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("%s exists: %v", dir, err)
				}
			}
		})
	}
}

// The same delivery, key and time yield the same signature.
func TestChecksumIntoIsReproducible(t *testing.T) {
	environ, at := allKeys(t), time.Now().Add(-time.Hour).Truncate(time.Second)
	var first string
	for range 2 {
		s, d := newSession(t, environ...)
		s.Settings.ReleaseDate = at
		if err := os.Remove(filepath.Join(d.dir, "go-rocm.deb")); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(d.dir, "go-rocm"), "program")
		if err := s.checksumInto(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(d.dir, release.OpenPGPFile))
		if err != nil {
			t.Fatal(err)
		}
		if first == "" {
			first = string(text)
		} else if first != string(text) {
			t.Errorf("signed differently:\n%s\n%s", first, text)
		}
	}
}

func TestUnreadableKeyNamesItsSetting(t *testing.T) {
	open := provenanceKey(t)
	if err := os.Chmod(open, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"no file": "/no/such", "no key": filepath.Join(minisignKeys, "message"), "readable by all": open} {
		s := &Session{Settings: &settings.Settings{MinisignKey: path}}
		if _, err := s.publicKeys(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "GOROCM_MINISIGN_KEY") {
			t.Errorf("minisign, %s: %v", name, err)
		}
		s = &Session{Settings: &settings.Settings{SigningKey: path}}
		if _, err := s.publicKeys(t.Context(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "GOROCM_SIGNING_KEY") {
			t.Errorf("provenance, %s: %v", name, err)
		}
	}
}

// treeDigest returns a digest of a directory tree.
func treeDigest(t *testing.T, dir string) string {
	t.Helper()
	sum, err := stage.Digest(dir)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// A repository that is signed by a key accepts only releases that the key signs.
func TestPublishRequiresTheKeyOfTheClients(t *testing.T) {
	served := filepath.Join(t.TempDir(), "served")
	deliver := func(version string, environ ...string) (*Session, *delivery) {
		s, d := newSession(t, environ...)
		for name, text := range map[string]string{"go.mod": "module " + modulePath + "\n\ngo 1.26\n", "a.go": "package a\n"} {
			writeFile(t, filepath.Join(d.root, name), text)
		}
		if err := s.addModule(t.Context(), d, filepath.Join(d.dir, proxyDir), modulePath, version, d.sourceFiles([]string{"go.mod", "a.go"})); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.aptInto(t.Context(), d), s.checksumInto(t.Context(), d)); err != nil {
			t.Fatal(err)
		}
		return s, d
	}
	environ := []string{"GOROCM_APT_KEY=" + openPGPKey(t), "GOROCM_APT_URL=https://example.org/apt"}
	s, d := deliver("v0.1.0", environ...)
	signature := filepath.Join(d.dir, release.OpenPGPFile)
	if err := os.Rename(signature, signature+".away"); err != nil {
		t.Fatal(err)
	}
	if err := s.publishTo(t.Context(), d.dir, served); !errors.Is(err, release.ErrUnsigned) {
		t.Errorf("without a signature: %v", err)
	}
	if err := os.Rename(signature+".away", signature); err != nil {
		t.Fatal(err)
	}
	if err := s.publishTo(t.Context(), d.dir, served); err != nil {
		t.Fatal(err)
	}
	before := treeDigest(t, served)
	s, d = deliver("v0.2.0", "GOROCM_APT_KEY="+openPGPKey(t), "GOROCM_APT_URL=https://example.org/apt")
	if err := s.publishTo(t.Context(), d.dir, served); !errors.Is(err, release.ErrSignature) {
		t.Errorf("by another key: %v", err)
	}
	// Removing the keyring and the signature from a release does not turn the check off.
	for name, environ := range map[string][]string{
		"without a key": nil, "with an unsigned repository": {"GOROCM_APT_UNSIGNED=true", "GOROCM_APT_URL=https://example.org/apt"},
	} {
		s, d = deliver("v0.2.0", environ...)
		if err := s.publishTo(t.Context(), d.dir, served); !errors.Is(err, release.ErrUnsigned) || !strings.Contains(err.Error(), "GOROCM_APT_KEY_FILE") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after := treeDigest(t, served); after != before {
		t.Error("a rejected release changed the served files")
	}
}
