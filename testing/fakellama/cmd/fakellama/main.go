// Command fakellama is a stand-in for llama-server that needs no model and no
// GPU. It takes llama-server's flags and misbehaves as the script in
// FAKELLAMA_SCRIPT says; see package fakellama.
package main

import (
	"os"

	"forge.lthn.ai/core/go-rocm/testing/fakellama"
)

func main() {
	os.Exit(fakellama.Main(os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}
