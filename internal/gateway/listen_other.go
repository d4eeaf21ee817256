//go:build !linux

package gateway

import (
	"context"
	"net"
)

// listenUnix listens on a socket file.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}
