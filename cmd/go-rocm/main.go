// Command go-rocm runs language models on AMD GPUs: in the terminal, or as an
// OpenAI-compatible server. See package cli for the commands.
package main

import (
	"os"

	"forge.lthn.ai/core/go-rocm/cmd/go-rocm/cli"
)

// version is set by the linker (-X main.version=1.2.3). Without it, the version that the
// go command recorded is printed.
var version string

func main() {
	os.Exit(cli.Main(version, os.Args[1:]))
}
