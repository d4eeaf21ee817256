// Package llamaapi is a client for llama.cpp's llama-server.
//
// It uses the server's native endpoints. They return more than the endpoints
// that imitate other vendors: token ids beside the text, timings of prefill and
// decode, probabilities, slots and adapters. Streams of tokens have a decoder of
// their own (sse.go, cursor.go, event.go), because that path runs once per token;
// everything else uses encoding/json.
//
// The package does not start processes and does not read models or files. It
// takes a base URL and an *http.Client, which may dial a unix socket. It does not
// retry once a response has started, because only the caller can see whether a token
// was used.
//
// The wire format is that of llama.cpp v0.5.0, tools/server: server-schema.cpp
// (requests), server-task.cpp (responses), server-context.cpp (when events are
// sent), server-http.cpp (errors while loading, API key).
package llamaapi
