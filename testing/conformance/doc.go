// Package conformance holds the promises of pkg/inference as checks that any
// backend can be put through:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Subject{Backend: mine, Model: "model.gguf"})
//	}
//
// Checks returns them one by one, for a program that is not a test. A check loads
// what it needs and says in its error which promise was broken and how. Its
// context ends after Subject.Patience; one that does not come back then is given
// up a quarter of that later. The first loading of the model, by Run, takes as long
// as the backend takes. Speed is no promise and is not looked at; the quality of
// what the model says neither.
//
// The package's own test runs the suite over a sound backend, which must pass,
// and over backends that break one promise each, which must be found out.
package conformance
