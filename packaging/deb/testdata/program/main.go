// Program replaces the command in tests: static, with one module linked in.
package main

import (
	"fmt"

	"github.com/klauspost/compress/zstd"
)

func main() {
	w, err := zstd.NewWriter(nil)
	fmt.Println(w != nil, err)
}
