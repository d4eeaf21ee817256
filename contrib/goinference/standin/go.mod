// A stand-in for go-inference of the v0.1 line: its exported names and their
// signatures, for compiling and testing the adapter where the module itself
// cannot be had. Nothing but a replace directive may point here.
module forge.lthn.ai/core/go-inference

go 1.25.5
