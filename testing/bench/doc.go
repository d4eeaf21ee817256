// Package bench measures the cost of a token from the socket to the program, in this
// project's client and in others.
//
// Every case reads the same number of events from a server on the loopback interface.
// The server has the whole response in memory and sends each event in a chunk of its
// own, as llama-server does, so that the client is measured. Clients of the OpenAI
// protocol read the chunks of /v1/chat/completions, the others those of /completion.
//
// A real server generates a token in milliseconds. The cost matters where many streams
// share a machine.
package bench
