//go:build !linux

package cli

import (
	"context"
	"net"
)

// listenUnix listens on a socket file. Serving a model needs Linux.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	return new(net.ListenConfig).Listen(ctx, "unix", path)
}
