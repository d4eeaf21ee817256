package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"forge.lthn.ai/core/go-rocm/internal/regfile"
)

// Listen listens on host:port or unix:PATH, with TLS if there is a certificate. It
// fails for an address that other machines can reach if there is no key.
func Listen(ctx context.Context, address string, credentials *CredentialStore) (net.Listener, error) {
	if err := credentials.Protect(address); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	l, err := ListenPlain(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with --listen", address, err)
	}
	if !credentials.HasCertificate() {
		return l, nil
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: credentials.certificate, MinVersion: tls.VersionTLS12}), nil
}

// ListenPlain listens on host:port or unix:PATH, without TLS.
func ListenPlain(ctx context.Context, address string) (net.Listener, error) {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return new(net.ListenConfig).Listen(ctx, "tcp", address)
	}
	l, err := listenUnix(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// URL returns the URL of a listener: http://ADDRESS, https://ADDRESS or unix:PATH.
func URL(l net.Listener, credentials *CredentialStore) string {
	switch {
	case l.Addr().Network() == "unix":
		return "unix:" + l.Addr().String()
	case credentials.HasCertificate():
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// CheckSocket reports what keeps the service from listening on an address that is the path
// of a socket. A socket that is there is replaced, or its service is running.
func CheckSocket(address string) error {
	path, isUnix := strings.CutPrefix(address, "unix:")
	if !isUnix {
		return nil
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is a %s and no socket; remove it, or choose another path", path, regfile.Kind(info.Mode()))
	}
	return regfile.CheckDir(filepath.Dir(path))
}

// maxSocketPath is the longest path of a socket: 108 bytes with the final zero
// (unix(7)).
const maxSocketPath = 107

// IsLocal reports whether only programs of this machine can reach an address. An
// error means that the address is not of the form host:port or unix:PATH.
func IsLocal(address string) (bool, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if path == "" {
			return false, errors.New("unix: needs a path")
		}
		if len(path) > maxSocketPath {
			return false, fmt.Errorf("unix: %s has %d bytes; the path of a socket has at most %d", path, len(path), maxSocketPath)
		}
		return true, nil
	}
	if _, err := net.ResolveTCPAddr("tcp", address); err != nil {
		return false, fmt.Errorf("%w; write host:port or unix:PATH", err)
	}
	return isLoopbackHost(address), nil
}
