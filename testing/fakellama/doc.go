// Package fakellama imitates the HTTP surface of llama.cpp's llama-server
// without a model, a GPU or any C++, so that a program that uses one can be
// tested in an instant and under faults that a real server shows once a month.
//
// A Server is an http.Handler for tests in process:
//
//	srv := httptest.NewServer(fakellama.New(fakellama.Script{Reply: "Hello!"}))
//
// and cmd/fakellama is a program that takes llama-server's flags and reads its
// script from the environment (Script.Env), for tests of whatever starts,
// watches and stops a server process.
//
// Without a Reply the "model" babbles: its text is a function of the prompt (and
// of the seed when the temperature is not 0), it has emoji and ideographs whose
// bytes are spread over tokens, and it ends by itself now and then. The wire
// format, the ends of a stream, the withheld events of split runes, stop texts,
// error objects and the order of startup are those of llama.cpp v0.5.0
// (tools/server). Quality, speed and memory of a real server are no part of it.
package fakellama
