package webui

import "embed"

// The pattern is the directory, so that the program compiles without the page, too.
//
//go:embed payload
var embedded embed.FS
