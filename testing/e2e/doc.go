// Package e2e contains the end-to-end tests: real bundles, real models, separate programs,
// real client libraries. They prove what no unit test can prove: a user who follows the
// README gets a correct answer.
//
// The tests have the build tag e2e. `mage test` runs them and passes the paths of what it
// built:
//
//	GOROCM_BUNDLE        the packed cpu bundle, or the directory of an unpacked one
//	GOROCM_HIP_BUNDLE    the packed hip bundle
//	GOROCM_BACKEND_OPS   llama.cpp's test-backend-ops, built from the same source
//	GOROCM_LAVAPIPE      the directory with Mesa's lavapipe of Debian 13
//	GOROCM_LLAMA_SOURCE  the llama.cpp source, for the tokenizers of tiny models
//	GOROCM_CLI           the go-rocm command; built from the source if unset
//
// The client libraries of Python and npm, and Node itself, are installed by pip and npm at
// the versions and hashes that the directory clients states, once, beside the test models;
// this takes Python 3.11.
//
// Web pages are opened in Chromium (packages browser and pages), which must be installed.
//
// No test is skipped: a missing input fails with a remedy. The tests need and use
// no GPU: the hip bundle must start without one.
package e2e
