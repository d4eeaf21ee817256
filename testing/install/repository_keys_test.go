//go:build install

package install_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"forge.lthn.ai/core/go-rocm/packaging/apt"
	"forge.lthn.ai/core/go-rocm/testing/pgpkeys"
)

// TestRepositoryKeysAgreeWithClients signs repositories with keys of all kinds and runs
// the apt of each suite on them. Every apt accepts a key that apt.Options.Check accepts,
// and at least one refuses a key that it rejects.
func TestRepositoryKeysAgreeWithClients(t *testing.T) {
	a := newArchive(t)
	signed := a.now.Add(-time.Hour)
	keys := pgpkeys.Keys(t, signed)
	dir := t.TempDir()
	for i, k := range keys {
		a.signedBy(filepath.Join(dir, "apt", kindDir(i)), k, signed)
	}
	refusals := map[string][]string{}
	for _, suite := range append(suites(), "forky") {
		b := start(t, suite)
		packed := filepath.Join(t.TempDir(), "apt.tar")
		pack(t, dir, packed)
		if err := b.Copy(t.Context(), packed, "/srv/apt.tar"); err != nil {
			t.Fatal(err)
		}
		b.sh("tar -C /srv -xf /srv/apt.tar && rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*")
		for i, k := range keys {
			repository := "/srv/apt/" + kindDir(i)
			b.sh("rm -rf /var/lib/apt/lists/* && echo 'deb [signed-by=" + repository + "/key.gpg] file:" + repository + " stable main' >/etc/apt/sources.list")
			if out, err := b.Run(t.Context(), "", "sh", "-c", "apt-get update 2>&1"); err != nil {
				refusals[k.Name] = append(refusals[k.Name], suite)
				t.Logf("%s: %s: %v", suite, k.Name, err)
			} else if strings.Contains(out, "W:") {
				t.Logf("%s: %s: %s", suite, k.Name, out)
			}
		}
	}
	for _, k := range keys {
		parsed := a.parse(k.Private(t))
		err := apt.Options{URL: repositoryURL, Suite: "stable", Date: signed, Validity: 24 * time.Hour, Keys: parsed}.Check()
		if accepted, reasons := err == nil, refusals[k.Name]; accepted != (len(reasons) == 0) {
			t.Errorf("%s: refused by %v, Check: %v", k.Name, reasons, err)
		}
	}
}

func kindDir(i int) string { return "kind" + string(rune('a'+i)) }

// signedBy creates a repository and signs it without the checks of packaging/apt.
func (a *archive) signedBy(dir string, k pgpkeys.Key, at time.Time) {
	a.t.Helper()
	a.publish(dir, a.now.Sub(at), func(o *apt.Options) { o.Keys, o.Unsigned = nil, true }, a.small("1.0-1"))
	release, err := os.ReadFile(filepath.Join(dir, "dists/stable/Release"))
	if err != nil {
		a.t.Fatal(err)
	}
	key := k.Entity.PrivateKey
	if len(k.Entity.Subkeys) > 0 {
		key = k.Entity.Subkeys[0].PrivateKey
	}
	var signed, keyring bytes.Buffer
	w, err := clearsign.Encode(&signed, key, &packet.Config{Time: func() time.Time { return at }})
	if err != nil {
		a.t.Fatal(err)
	}
	if _, err := w.Write(release); err != nil {
		a.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		a.t.Fatal(err)
	}
	if err := k.Entity.Serialize(&keyring); err != nil {
		a.t.Fatal(err)
	}
	for name, b := range map[string][]byte{"dists/stable/InRelease": append(signed.Bytes(), '\n'), "key.gpg": keyring.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			a.t.Fatal(err)
		}
	}
}
