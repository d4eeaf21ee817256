// Command rdna3 examines the GPU code of files: which instructions occur, whether the interpreter has them, and
// whether llvm-objdump prints them as this package does.
//
//	rdna3 opcodes FILE...            the instructions, how often they occur, and in how many files
//	rdna3 compare [-objdump PROGRAM] FILE...
//
// A FILE is a library with a HIP fat binary, a code object, or a directory with such files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"forge.lthn.ai/core/go-rocm/testing/rdna3/survey"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rdna3:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: rdna3 opcodes FILE... or rdna3 compare [-objdump PROGRAM] FILE")

func run(ctx context.Context, out io.Writer, args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	switch args[0] {
	case "opcodes":
		return opcodes(out, args[1:])
	case "compare":
		flags := flag.NewFlagSet("compare", flag.ContinueOnError)
		objdump := flags.String("objdump", "llvm-objdump-21", "the disassembler to compare with")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return compare(ctx, out, *objdump, flags.Args())
	}
	return errUsage
}

// opcodes prints the instructions of the files. Those that the interpreter has not are marked.
func opcodes(out io.Writer, paths []string) error {
	counts, err := survey.Opcodes(paths)
	if err != nil {
		return err
	}
	total, ops, run, missing := 0, 0, 0, 0
	for _, c := range counts {
		mark := ""
		total, ops = total+c.N, ops+1
		if c.Implemented {
			run++
		} else {
			mark = "  not implemented"
			missing += c.N
		}
		fmt.Fprintf(out, "%9d  %3d files  %s%s\n", c.N, len(c.Files), c.Name, mark)
	}
	fmt.Fprintf(out, "%d instructions, %d of %d opcodes implemented, which leaves out %d instructions\n", total, run, ops, missing)
	return nil
}

// compare prints the instructions that the disassembler prints in another way, the first of each form.
func compare(ctx context.Context, out io.Writer, objdump string, paths []string) error {
	objects, instructions, differences := 0, 0, 0
	seen := map[string]bool{}
	err := survey.Walk(paths, func(c survey.CodeObject) error {
		objects++
		n, err := survey.Compare(ctx, objdump, c, func(d survey.Difference) {
			differences++
			if form := survey.Form(d.Got); !seen[form] {
				seen[form] = true
				fmt.Fprintf(out, "%s %s %#x: %08x\n  here: %s\n  LLVM: %s\n", c.File, c.Target, d.Addr, d.Words, d.Got, d.Want)
			}
		})
		instructions += n
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d code objects, %d instructions, %d differences\n", objects, instructions, differences)
	if differences > 0 {
		return errors.New("the disassembly differs")
	}
	return nil
}
