package apt_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/packaging/debgen"
)

// first is the date of the first publish in these tests.
var first = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// newKey returns a key that was created a day before the first publish.
func newKey(t testing.TB, change func(*packet.Config)) *openpgp.Entity {
	t.Helper()
	c := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return first.AddDate(0, 0, -1) }}
	if change != nil {
		change(c)
	}
	e, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", c)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// withRSA makes newKey return an RSA key of 3072 bits. All of them have the same primes,
// which take seconds to find under the race detector.
func withRSA(t testing.TB) func(*packet.Config) {
	t.Helper()
	primes, err := rsaPrimes()
	if err != nil {
		t.Fatal(err)
	}
	return func(c *packet.Config) {
		c.Algorithm, c.RSABits, c.RSAPrimes = packet.PubKeyAlgoRSA, rsaBits, slices.Concat(primes, primes) // and of a subkey
	}
}

const rsaBits = 3072

var rsaPrimes = sync.OnceValues(func() ([]*big.Int, error) {
	k, err := rsa.GenerateKey(rand.Reader, rsaBits)
	if err != nil {
		return nil, err
	}
	return k.Primes, nil
})

func export(t testing.TB, e *openpgp.Entity, private bool) []byte {
	t.Helper()
	var b bytes.Buffer
	kind, write := openpgp.PublicKeyType, e.Serialize
	if private {
		kind = openpgp.PrivateKeyType
		write = func(w io.Writer) error { return e.SerializePrivateWithoutSigning(w, nil) }
	}
	w, err := armor.Encode(&b, kind, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = write(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func keysOf(t testing.TB, e *openpgp.Entity) *apt.Keys {
	t.Helper()
	k, err := apt.ParseKeys(export(t, e, true), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// newDeb writes a package with one file of its own, whose contents are body.
func newDeb(t testing.TB, name, version, body string) string {
	t.Helper()
	path, err := debgen.Package{
		Control: debgen.Control(name, version), Compression: ".zst",
		Files: map[string]string{"usr/share/" + name + "/text of " + name: body, "usr/share/common": "x"},
	}.Write(t.TempDir(), name+".deb")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func options(dir string, keys *apt.Keys, date time.Time, debs ...string) apt.Options {
	return apt.Options{Dir: dir, URL: "https://example.org/apt", Suite: "stable", Debs: debs, Date: date, Keys: keys, Unsigned: keys == nil}
}

func publish(t testing.TB, o apt.Options) {
	t.Helper()
	if err := apt.Publish(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// tree returns the digest and mode of each file by path.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, name))
		info, infoErr := e.Info()
		if err != nil || infoErr != nil {
			return fmt.Errorf("%w, %w", err, infoErr)
		}
		out[name] = fmt.Sprintf("%s %s", hash(b), info.Mode())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// client reads a repository as apt does: the signed file, then the indexes by
// digest, then the packages.
type client struct {
	dir  string
	keys openpgp.EntityList
}

// update verifies InRelease and returns the digests in it by path.
func (c client) update() (map[string]string, error) {
	signed, err := os.ReadFile(filepath.Join(c.dir, "dists/stable/InRelease"))
	if err != nil {
		return nil, err
	}
	block, _ := clearsign.Decode(signed)
	if block == nil {
		return nil, fmt.Errorf("InRelease is not signed")
	}
	at := &packet.Config{Time: func() time.Time { return first.AddDate(0, 3, 0) }}
	if _, err := block.VerifySignature(c.keys, at); err != nil {
		return nil, err
	}
	sums := map[string]string{}
	_, list, _ := strings.Cut(string(block.Plaintext), "SHA256:\n")
	for line := range strings.Lines(list) {
		if words := strings.Fields(line); len(words) == 3 {
			sums[words[2]] = words[0]
		}
	}
	return sums, nil
}

// fetch reads and verifies the indexes and packages of an update.
func (c client) fetch(sums map[string]string) error {
	var packages string
	for name, sum := range sums {
		b, err := os.ReadFile(filepath.Join(c.dir, "dists/stable", filepath.Dir(name), "by-hash/SHA256", sum))
		if err != nil {
			return err
		}
		if hash(b) != sum {
			return fmt.Errorf("the digest of %s differs", name)
		}
		if strings.HasSuffix(name, "/Packages") {
			packages = string(b)
		}
	}
	var file string
	for line := range strings.Lines(packages) {
		if name, ok := strings.CutPrefix(line, "Filename: "); ok {
			file = strings.TrimSpace(name)
		}
		if sum, ok := strings.CutPrefix(line, "SHA256: "); ok {
			b, err := os.ReadFile(filepath.Join(c.dir, file))
			if err != nil {
				return err
			}
			if hash(b) != strings.TrimSpace(sum) {
				return fmt.Errorf("the digest of %s differs", file)
			}
		}
	}
	return nil
}
