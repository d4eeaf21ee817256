// Package ci holds what `mage lint`, `mage test` and `mage ci` do: formatting,
// linting, vetting, race tests, fuzzing, the end-to-end and install tests and
// the vulnerability check, each as a [Step] of a run that ends with one honest
// count of Go tests.
//
// It exists so that the build file stays a list of one-line targets and so
// that the same checks run on a desk, in a hosted workflow and in `.ci/run`.
// A step that fails does not end the run: the others still speak, unless they
// need what the failed one makes.
//
// It does not build bundles or packages. Those come in as functions
// ([Hooks]), so this package knows neither the container engine nor the
// recipe.
package ci
