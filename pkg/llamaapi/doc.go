// Package llamaapi speaks to a llama-server of llama.cpp over HTTP.
//
// It covers the server's own endpoints, which tell more than the ones that
// imitate other vendors: token ids beside the text, timings of prefill and
// decode, probabilities, slots, adapters. A stream of tokens is decoded by hand
// (sse.go, cursor.go, event.go), since that is the one path that runs once per
// token; everything else goes through encoding/json.
//
// The package knows nothing of processes, models or files: it is given a base
// address and an *http.Client, which may dial a unix socket. It does not try
// again once an answer began, since only the caller knows whether a token was used.
//
// The wire facts are those of llama.cpp v0.5.0, tools/server: server-schema.cpp
// (requests), server-task.cpp (answers), server-context.cpp (when an event is
// sent), server-http.cpp (errors while loading, API key).
package llamaapi
