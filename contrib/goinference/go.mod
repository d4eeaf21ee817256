// The adapter is a module of its own, so that a program which uses package rocm
// directly does not need go-inference. The replacements are for this checkout
// alone; the go command ignores them in a module that is required by another.
module forge.lthn.ai/core/go-rocm/contrib/goinference

go 1.25.5

require (
	forge.lthn.ai/core/go-inference v0.1.7
	forge.lthn.ai/core/go-rocm v0.1.0-plain
)

require (
	github.com/klauspost/compress v1.20.3 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

replace (
	forge.lthn.ai/core/go-inference => ./standin
	forge.lthn.ai/core/go-rocm => ../..
)
