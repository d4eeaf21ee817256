package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
)

func listen(ctx context.Context, address string, k *keeper) (net.Listener, error) {
	l, err := listenOn(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; choose another address with --listen", address, err)
	}
	if k.now.Load().cert == nil {
		return l, nil
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: k.certificate, MinVersion: tls.VersionTLS12}), nil
}

func listenOn(ctx context.Context, address string) (net.Listener, error) {
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

func address(f *serveFlags, l net.Listener) string {
	scheme := "http"
	if f.tlsCert != "" {
		scheme = "https"
	}
	if l.Addr().Network() == "unix" {
		return f.listen
	}
	return scheme + "://" + l.Addr().String()
}

// isLocal reports whether only this machine can reach an address.
func isLocal(listen string) (bool, error) {
	if path, ok := strings.CutPrefix(listen, "unix:"); ok {
		if path == "" {
			return false, fmt.Errorf("%w: --listen unix: needs a path", errUsage)
		}
		return true, nil
	}
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, fmt.Errorf("%w: --listen: %w; write host:port or unix:PATH", errUsage, err)
	}
	if host == "localhost" {
		return true, nil
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback(), nil
}
