//go:build !amd64

package rdna3

// Other processors run the plain forms alone.
type fastStep struct{}

func (s *step) accelerate() {}

func (s *step) accelerateDual(_, _ *step) {}
