package rocm

import "forge.lthn.ai/core/go-rocm/pkg/inference"

// init registers the backend, as the contract's backends do. On platforms that
// cannot run it the registered backend says so when it is asked for.
func init() { inference.Register(&Backend{}) } //nolint:gochecknoinits // the contract's way of registering
