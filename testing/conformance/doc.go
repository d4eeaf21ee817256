// Package conformance holds the promises of pkg/inference as checks that any
// backend can be put through:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Subject{Backend: mine, Model: "model.gguf"})
//	}
//
// Checks gives them one by one, for a program that is not a test. A check loads
// what it needs, waits for nothing longer than Subject.Patience, and says in its
// error which promise was broken and how. Speed is no promise and is not looked
// at; the quality of what the model says neither.
//
// The package's own test runs the suite over a sound backend, which must pass,
// and over backends that break one promise each, which must be found out.
package conformance
