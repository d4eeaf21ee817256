//go:build linux && amd64

package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"forge.lthn.ai/core/go-rocm/testing/fakehub"
	"forge.lthn.ai/core/go-rocm/testing/ggufgen"
)

// storeScriptCommands are the commands for scripts that pull models.
func storeScriptCommands() map[string]scriptCommand {
	return map[string]scriptCommand{
		// hub starts a hub with the repositories in $HUB.
		"hub": func(ts *testscript.TestScript, _ bool, _ []string) {
			h, stop := fakehub.New(ts.MkAbs("hub"))
			ts.Defer(stop)
			ts.Setenv("HF_ENDPOINT", h.URL)
			ts.Setenv("HUB", h.Dir)
		},
		// readme HEADING FILE writes the first block of commands below a heading of the
		// README, those of lines that are indented by four spaces.
		"readme": func(ts *testscript.TestScript, _ bool, args []string) {
			raw, err := os.ReadFile(filepath.Join(readmeDir, "README.md"))
			ts.Check(err)
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(firstCommands(string(raw), args[0])), 0o600))
		},
		// small FILE writes a model of a few KiB.
		"small": files(1, func(_ *testscript.TestScript, path string, _ []string) error { return writeSmall(path) }),
		// damage-blob DIR changes a byte of each blob of a store.
		"damage-blob": func(ts *testscript.TestScript, _ bool, args []string) {
			blobs, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256-*"))
			ts.Check(err)
			for _, blob := range blobs {
				raw, err := os.ReadFile(blob)
				ts.Check(err)
				raw[len(raw)-1] ^= 1
				ts.Check(errors.Join(os.Chmod(blob, 0o600), os.WriteFile(blob, raw, 0o600)))
			}
		},
	}
}

// readmeDir is the directory of the README, seen from that of this package.
const readmeDir = "../../.."

// firstCommands returns the first indented block below a heading of a Markdown document.
func firstCommands(markdown, heading string) string {
	_, below, _ := strings.Cut(markdown, "\n## "+heading+"\n")
	var block strings.Builder
	for line := range strings.Lines(below) {
		command, ok := strings.CutPrefix(line, "    ")
		switch {
		case ok:
			block.WriteString(command)
		case block.Len() > 0:
			return block.String()
		}
	}
	return block.String()
}

// writeSmall writes a model that can be planned, with weights of zeros.
func writeSmall(path string) error {
	b := ggufgen.New("llama")
	for key, v := range map[string]uint32{"block_count": 1, "context_length": 256, "embedding_length": 8, "feed_forward_length": 8, "attention.head_count": 1, "attention.head_count_kv": 1} {
		b.Uint("llama."+key, v)
	}
	b.Texts("tokenizer.ggml.tokens", []string{"a", "b"})
	zeros := func(w io.Writer, size uint64) error {
		_, err := w.Write(make([]byte, size))
		return err
	}
	b.Tensor("token_embd.weight", 0, zeros, 8, 2)
	for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down", "ffn_gate"} {
		b.Tensor("blk.0."+name+".weight", 0, zeros, 8, 8)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return b.WriteFile(path)
}
