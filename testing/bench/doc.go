// Package bench measures what a token costs on its way from the socket to the
// program, in this project's client and in others.
//
// Every case reads the same number of events from a server on the loopback
// interface that has the whole answer ready, each event in a chunk of its own as
// llama-server sends it, so that what is measured is the client. Clients of the
// OpenAI protocol are given the chunks that llama-server writes for
// /v1/chat/completions, the others those of /completion.
//
// A real server makes a token in milliseconds. The cost counts where many
// streams share a machine, and as a measure of what the client does in vain.
package bench
