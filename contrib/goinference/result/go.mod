// The adapter for the later line of go-inference, whose module has another path.
// As in the directory above, the replacements are for this checkout alone.
module forge.lthn.ai/core/go-rocm/contrib/goinference/result

go 1.26.2

require (
	dappco.re/go v0.12.0
	dappco.re/go/inference v0.14.0
	forge.lthn.ai/core/go-rocm v0.1.0-plain
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	dappco.re/go => ./standin/core
	dappco.re/go/inference => ./standin/inference
	forge.lthn.ai/core/go-rocm => ../../..
)
