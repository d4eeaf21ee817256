// The benchmarks live in a module of their own, so that the libraries they
// compare with never become a dependency of a program that uses go-rocm.
module forge.lthn.ai/core/go-rocm/testing/bench

go 1.26.4

require (
	forge.lthn.ai/core/go-rocm v0.0.0
	github.com/openai/openai-go/v3 v3.96.0
	github.com/sashabaranov/go-openai v1.43.0
)

require (
	github.com/coder/websocket v1.8.15 // indirect
	github.com/tidwall/gjson v1.20.0 // indirect
	github.com/tidwall/match v1.1.1 // indirect
	github.com/tidwall/pretty v1.2.1 // indirect
	github.com/tidwall/sjson v1.2.5 // indirect
)

replace forge.lthn.ai/core/go-rocm => ../..
