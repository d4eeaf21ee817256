//go:build linux

package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// A FIFO without a writer must not block the start or a reload.
func TestCredentialFilesRejectFIFO(t *testing.T) {
	t.Parallel()
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]CredentialFiles{
		"keys":        {KeyFile: fifo},
		"certificate": {TLSCert: fifo, TLSKey: fifo},
	} {
		if _, err := files.load(slog.New(slog.DiscardHandler)); !errors.Is(err, regfile.ErrNotRegular) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// writeCertificate writes a certificate and its key into dir, each after prefix.
func writeCertificate(t *testing.T, dir, prefix string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	err = errors.Join(
		os.WriteFile(cert, append([]byte(prefix), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), 0o600),
		os.WriteFile(key, append([]byte(prefix), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})...), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// Files of keys that other users may write are rejected, and so are those that they
// may read; the group may read. A certificate is public.
func TestCredentialFilesMustBePrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte("secret-key\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := writeCertificate(t, dir, "")
	all := CredentialFiles{KeyFile: keys, TLSCert: cert, TLSKey: key}
	for _, tt := range []struct {
		file string
		mode fs.FileMode
		flag string // empty: accepted
		says string
	}{
		{keys, 0o600, "", ""},
		{keys, 0o400, "", ""},
		{keys, 0o640, "", ""},
		{keys, 0o440, "", ""},
		{keys, 0o644, "api-key-file", "chmod 600 " + keys},
		{keys, 0o604, "api-key-file", "chmod 600 " + keys},
		{keys, 0o620, "api-key-file", "chmod go-w " + keys},
		{keys, 0o602, "api-key-file", "chmod go-w " + keys},
		{keys, 0o666, "api-key-file", "(mode 0666)"},
		{key, 0o640, "", ""},
		{key, 0o644, "tls-key", "chmod 600 " + key},
		{key, 0o660, "tls-key", "chmod go-w " + key},
		{cert, 0o644, "", ""},
		{cert, 0o664, "tls-cert", "chmod go-w " + cert},
	} {
		if err := os.Chmod(tt.file, tt.mode); err != nil {
			t.Fatal(err)
		}
		_, err := all.load(slog.New(slog.DiscardHandler))
		var wrong *CredentialError
		switch {
		case tt.flag == "" && err != nil:
			t.Errorf("%s of mode %04o: %v", filepath.Base(tt.file), tt.mode, err)
		case tt.flag != "" && (!errors.As(err, &wrong) || wrong.Flag != tt.flag || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s of mode %04o: %v; want one about --%s that says %q", filepath.Base(tt.file), tt.mode, err, tt.flag, tt.says)
		}
		if err := os.Chmod(tt.file, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Editors of Windows put a byte order mark before UTF-8, and may write UTF-16.
func TestCredentialFilesWithByteOrderMark(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	cert, key := writeCertificate(t, dir, "\ufeff")
	files := CredentialFiles{KeyFile: keys, TLSCert: cert, TLSKey: key}
	if err := os.WriteFile(keys, []byte("\ufeff# ours\r\nfirst\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := files.load(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := c.find("first"); !ok {
		t.Error("the key of UTF-8 with a byte order mark is rejected")
	}
	if err := os.WriteFile(keys, []byte("\xff\xfef\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := files.load(slog.New(slog.DiscardHandler)); !errors.Is(err, regfile.ErrNotUTF8) {
		t.Errorf("UTF-16: %v", err)
	}
}

// A reload that would remove the last key of an address which other machines can reach,
// or begin or end TLS, changes nothing.
func TestReloadLeavesNoAddressOpen(t *testing.T) {
	t.Parallel()
	_, sum := NewKey()
	keys := []Key{{Name: "alice", SHA256: sum}}
	cert, key := writeCertificate(t, t.TempDir(), "")
	plain, secure := CredentialFiles{Named: keys}, CredentialFiles{Named: keys, TLSCert: cert, TLSKey: key}
	for name, tt := range map[string]struct {
		address       string
		before, after CredentialFiles
		accepted      bool
	}{
		"loopback":            {"127.0.0.1:8080", plain, CredentialFiles{}, true},
		"unix":                {"unix:/run/go-rocm.sock", plain, CredentialFiles{}, true},
		"every address":       {"0.0.0.0:8080", plain, CredentialFiles{}, false},
		"no host":             {":8080", plain, CredentialFiles{}, false},
		"IPv6":                {"[::]:8080", plain, CredentialFiles{}, false},
		"another key remains": {"0.0.0.0:8080", plain, CredentialFiles{Key: "other"}, true},
		"end of TLS":          {"127.0.0.1:8080", secure, plain, false},
		"begin of TLS":        {"127.0.0.1:8080", plain, secure, false},
		"the same TLS":        {"0.0.0.0:8080", secure, secure, true},
	} {
		log := slog.New(slog.DiscardHandler)
		store, err := LoadCredentials(tt.before, log)
		if err == nil {
			err = store.Protect(tt.address)
		}
		if err != nil {
			t.Fatal(err)
		}
		next, err := LoadCredentials(tt.after, log)
		if err != nil {
			t.Fatal(err)
		}
		before := store.current.Load()
		if err := store.Accepts(next); err == nil != tt.accepted {
			t.Errorf("%s: accepted with %v", name, err)
		}
		if err := store.Replace(tt.after); err == nil != tt.accepted {
			t.Errorf("%s: replaced with %v", name, err)
		}
		if !tt.accepted && store.current.Load() != before {
			t.Errorf("%s: the credentials have changed", name)
		}
	}
	empty, err := LoadCredentials(CredentialFiles{}, slog.New(slog.DiscardHandler))
	if err == nil {
		_, err = Listen(t.Context(), "0.0.0.0:0", empty)
	}
	if err == nil || !strings.Contains(err.Error(), "API key") {
		t.Errorf("listening on every address without a key: %v", err)
	}
}
