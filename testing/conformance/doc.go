// Package conformance checks the promises of pkg/inference on any backend:
//
//	func TestConformance(t *testing.T) {
//		conformance.Run(t, conformance.Subject{Backend: mine, Model: "model.gguf"})
//	}
//
// Checks returns the checks, for programs that are not tests. The error of a check
// says which promise was broken, and how. The context of a check ends after
// Subject.Patience; a check that has not returned a quarter of Patience later is
// abandoned. The first load of the model, by Run, has no time limit. The suite
// checks neither speed nor the quality of the generated text.
//
// The package's own tests run the suite on a correct backend, which must pass, and
// on backends that break one promise each, which must fail.
package conformance
