//go:build linux && amd64

package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
	"forge.lthn.ai/core/go-rocm/testing/poll"
)

// certify writes a self-signed certificate for this machine, and its key.
func (w *world) certify(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, about, about, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = w.file(t, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return cert, w.file(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

// asked returns the status of a request with that key, and the serial number of the server's
// certificate. The client trusts only the certificate in the file cert.
func asked(t *testing.T, url, cert, key string) (status int, serial int64) {
	t.Helper()
	raw, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/v1/models", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+key)
	res, err := transport.RoundTrip(req)
	if err != nil {
		return 0, 0 // the client does not trust the certificate
	}
	_ = res.Body.Close()
	return res.StatusCode, res.TLS.PeerCertificates[0].SerialNumber.Int64()
}

// SIGHUP reloads keys and certificate and keeps the model loaded; invalid files change
// nothing.
func TestServeReloadsCredentials(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	keys := w.file(t, "keys", []byte("first\n"))
	cert, key := w.certify(t, 1)
	s := w.serve(t, "--api-key-file", keys, "--tls-cert", cert, "--tls-key", key)
	child := childOf(t, s.cmd.Process.Pid)
	reload := func(says string) {
		t.Helper()
		before := strings.Count(s.errs.String(), says)
		if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		poll.Until(t, "the message "+says, func() bool { return strings.Count(s.errs.String(), says) > before })
	}
	expect := func(key string, status int, serial int64) {
		t.Helper()
		if gotStatus, gotSerial := asked(t, s.url, cert, key); gotStatus != status || gotSerial != serial {
			t.Errorf("%s: %d by certificate %d, want %d by %d", key, gotStatus, gotSerial, status, serial)
		}
	}
	expect("first", 200, 1)
	expect("second", 401, 1)

	w.certify(t, 2)
	w.file(t, "keys", []byte("second\n"))
	reload("certificate reloaded")
	expect("first", 401, 2)
	expect("second", 200, 2)

	for _, broken := range []string{"", "# none\n", "two words\n"} {
		w.file(t, "keys", []byte(broken))
		reload("not reloaded")
		expect("second", 200, 2)
	}
	w.file(t, "keys", []byte("third\n"))
	w.file(t, "cert.pem", nil)
	reload("not reloaded")
	if now := childOf(t, s.cmd.Process.Pid); now != child {
		t.Errorf("llama-server was process %d and is %d", child, now)
	}
	s.end(t)
}

// An unusable key file is an error of the configuration, for which systemd does not restart
// the service.
func TestServeWithWrongFilesIsMisconfigured(t *testing.T) {
	w := newWorld(t, fakellama.Script{})
	for key, says := range map[string]string{"api-key-file": "2: api-key-file: api keys: open /nonexistent", "tls-cert": "2: tls-cert: --tls-cert and --tls-key"} {
		path := writeConfig(t, "model = '"+w.model+"'\n"+key+" = '/nonexistent'\n")
		if _, errs, status := w.output(t, "serve", "--config", path); status != exitConfig || !strings.Contains(errs, path+":"+says) {
			t.Errorf("%s: status %d, %s", key, status, errs)
		}
	}
}
