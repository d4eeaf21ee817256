// Command probe is the only program of the image that the engine's tests run.
// It says what a job can see and do.
package main

import (
	"archive/tar"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

func main() {
	switch os.Args[1] {
	case "facts":
		facts()
	case "copy":
		in, err := os.ReadFile("/in/file")
		check(err)
		check(os.WriteFile("/out/file", append(in, " copied"...), 0o640))
	case "fail":
		for i := range 50 {
			fmt.Println("line", i)
		}
		_, _ = io.WriteString(os.Stderr, "the reason")
		os.Exit(7)
	case "archive":
		archive()
	case "sleep":
		fmt.Println("sleeping")
		time.Sleep(time.Hour)
	}
}

// archive writes a root file system of 64 MiB to standard output, and what it does to
// standard error.
func archive() {
	fmt.Fprintln(os.Stderr, "archiving")
	w := tar.NewWriter(os.Stdout)
	check(w.WriteHeader(&tar.Header{Name: "large", Typeflag: tar.TypeReg, Mode: 0o644, Size: 64 << 20}))
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i * 7) // every byte, those that are not text too
	}
	for range 64 {
		_, err := w.Write(block)
		check(err)
	}
	check(w.Close())
}

// facts prints what a hermetic job must not have.
func facts() {
	fmt.Println("uid", os.Getuid())
	host, err := os.Hostname()
	check(err)
	fmt.Println("host", host)
	ifs, err := net.Interfaces()
	check(err)
	for _, i := range ifs {
		fmt.Println("interface", i.Name)
	}
	fmt.Println("root writable", os.WriteFile("/file", nil, 0o600) == nil)
	fmt.Println("volume writable", os.WriteFile("/out/file", nil, 0o600) == nil)
	for _, v := range os.Environ() {
		fmt.Println("env", v)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
