// Package fakellama imitates the HTTP surface of llama.cpp's llama-server
// without a model, a GPU or C++. Tests of programs that use llama-server run fast
// with it, and under faults that a real server shows once a month.
//
// A Server is an http.Handler for tests in process. Close ends the requests that
// hang because of the script; the Close of httptest would otherwise wait for them:
//
//	fake := fakellama.New(fakellama.Script{Reply: "Hello!"})
//	srv := httptest.NewServer(fake)
//	defer srv.Close()
//	defer fake.Close()
//
// The program cmd/fakellama accepts llama-server's flags and reads its script from
// the environment (Script.Env). It is for tests of code that starts, watches and
// stops a server process. A test binary can also be that program: see the example
// of Main.
//
// The fake implements, under all their names, /health, /props (read only), /slots
// with saving and restoring, /models, /completion, /v1/completions,
// /v1/chat/completions, /tokenize, /detokenize, /apply-template, /embeddings,
// /v1/embeddings, /rerank and /lora-adapters. /metrics and writing /props respond
// that they are disabled. Other routes of llama-server are not found: /responses,
// /v1/messages, /infill, /audio, input_tokens and count_tokens,
// /chat/completions/control, /v1/stream, the routes of the router, /tools,
// /cors-proxy and the web pages. The fake uses only the members of a request that
// an endpoint needs: it ignores samplers, tools and response formats, and rejects
// a grammar only if it is malformed.
//
// Without a Reply the "model" generates a text that is a function of the prompt
// (and of the seed if the temperature is not 0). The text has emoji and ideographs
// whose bytes are split over tokens, and sometimes ends by itself. The wire format,
// the ends of a stream, the missing events of split runes, stop strings, error
// objects and the order of startup are those of llama.cpp v0.5.0 (tools/server).
// The fake does not imitate quality, speed or memory use.
package fakellama
