// Package fakellama imitates the HTTP surface of llama.cpp's llama-server
// without a model, a GPU or any C++, so that a program that uses one can be
// tested in an instant and under faults that a real server shows once a month.
//
// A Server is an http.Handler for tests in process. Close frees the requests that
// hang by its script, without which the Close of httptest would wait for them:
//
//	fake := fakellama.New(fakellama.Script{Reply: "Hello!"})
//	srv := httptest.NewServer(fake)
//	defer srv.Close()
//	defer fake.Close()
//
// and cmd/fakellama is a program that takes llama-server's flags and reads its
// script from the environment (Script.Env), for tests of whatever starts,
// watches and stops a server process. A test's own binary can be that program,
// too: see the example of Main.
//
// Imitated are, under all of their names, /health, /props (to read), /slots and
// what saves them, /models, /completion, /v1/completions, /v1/chat/completions,
// /tokenize, /detokenize, /apply-template, /embeddings, /v1/embeddings, /rerank
// and /lora-adapters. /metrics, and /props to write, answer that they are off. All
// else is not found, though llama-server has it: /responses, /v1/messages, /infill,
// /audio, input_tokens and count_tokens, /chat/completions/control, /v1/stream, the
// models of a router, /tools, /cors-proxy and the web pages. Of a request only what
// the endpoint needs is heeded: no samplers, no tools, no response formats, and a
// grammar only as far as it cannot be one.
//
// Without a Reply the "model" babbles: its text is a function of the prompt (and
// of the seed when the temperature is not 0), it has emoji and ideographs whose
// bytes are spread over tokens, and it ends by itself now and then. The wire
// format, the ends of a stream, the withheld events of split runes, stop texts,
// error objects and the order of startup are those of llama.cpp v0.5.0
// (tools/server). Quality, speed and memory of a real server are no part of it.
package fakellama
