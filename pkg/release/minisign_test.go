package release_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/pkg/release"
)

func minisignFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "minisign", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func minisignPair(t *testing.T, name, password string) (*release.MinisignSigner, *release.MinisignVerifier) {
	t.Helper()
	s, err := release.ParseMinisignSigner(minisignFile(t, name+".key"), password)
	if err != nil {
		t.Fatal(err)
	}
	return s, minisignKey(t, name)
}

func minisignKey(t *testing.T, name string) *release.MinisignVerifier {
	t.Helper()
	k, err := release.ParseMinisignVerifier(minisignFile(t, name+".pub"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// withAlgorithm returns the signature with another algorithm in its first two bytes,
// which no signature covers.
func withAlgorithm(t *testing.T, sig []byte, algorithm string) []byte {
	t.Helper()
	lines := strings.SplitAfter(string(sig), "\n")
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(lines[1]))
	if err != nil || string(raw[:2]) != "ED" {
		t.Fatalf("signature %q: %v", lines[1], err)
	}
	copy(raw, algorithm)
	lines[1] = base64.StdEncoding.EncodeToString(raw) + "\n"
	return []byte(strings.Join(lines, ""))
}

// The signature equals that of minisign, except for the untrusted comment.
func TestMinisignSignatureEqualsMinisigns(t *testing.T) {
	t.Parallel()
	signer, key := minisignPair(t, "plain", "")
	message, want := minisignFile(t, "message"), minisignFile(t, "message.minisig")
	got, err := signer.Sign(message, "ours")
	if err != nil {
		t.Fatal(err)
	}
	withoutFirst := func(b []byte) string { _, rest, _ := strings.Cut(string(b), "\n"); return strings.TrimSpace(rest) }
	if withoutFirst(got) != withoutFirst(want) {
		t.Errorf("got\n%s\nminisign writes\n%s", got, want)
	}
	for name, sig := range map[string][]byte{"minisign's": want, "ours": got} {
		if err := key.Verify(message, sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMinisignRejects(t *testing.T) {
	t.Parallel()
	signer, key := minisignPair(t, "plain", "")
	message := []byte("the list")
	sig, err := signer.Sign(message, "comment")
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Verify(message, sig); err != nil {
		t.Fatal(err)
	}
	stranger := minisignKey(t, "locked")
	for name, err := range map[string]error{
		"changed message": key.Verify([]byte("the List"), sig),
		"changed comment": key.Verify(message, bytes.Replace(sig, []byte("trusted comment: comment"), []byte("trusted comment: commend"), 1)),
		"another's key":   stranger.Verify(message, sig),
		"no signature":    key.Verify(message, nil),
		"cut":             key.Verify(message, sig[:len(sig)/2]),
		"other algorithm": key.Verify(message, withAlgorithm(t, sig, "Ed")),
		"no algorithm":    key.Verify(message, withAlgorithm(t, sig, "xx")),
	} {
		if !errors.Is(err, release.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"no key":        func() error { _, err := release.ParseMinisignSigner([]byte("x"), ""); return err }(),
		"no public key": func() error { _, err := release.ParseMinisignVerifier([]byte("x")); return err }(),
	} {
		if !errors.Is(err, release.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A key may be encrypted with a password.
func TestMinisignPassword(t *testing.T) {
	if testing.Short() {
		t.Skip("minisign's key derivation takes seconds of a processor and a gigabyte of memory; `mage test` runs this test")
	}
	t.Parallel()
	signer, key := minisignPair(t, "locked", "pw")
	sig, err := signer.Sign([]byte("the list"), "comment")
	if err != nil {
		t.Fatal(err)
	}
	if err := key.Verify([]byte("the list"), sig); err != nil {
		t.Error(err)
	}
	if _, err := release.ParseMinisignSigner(minisignFile(t, "locked.key"), "wp"); !errors.Is(err, release.ErrKey) {
		t.Errorf("wrong password: %v", err)
	}
}
