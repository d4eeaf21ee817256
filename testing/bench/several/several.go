// Package several measures the service of several models: what the gateway costs a
// request, how fast one model replaces another, and what streams and idle connections
// cost in memory. The peer is llama-server's own router with the same bundle, whose
// children have the arguments and the environment of ours. The llama-server of a bundle
// cannot start programs; two libraries that are compiled for this benchmark make it a router.
//
// Services and children are processes, as users run them. Each service is compared with a
// llama-server without it, which the same client asks over the same kind of socket.
package several

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"forge.lthn.ai/core/go-rocm"
	page "forge.lthn.ai/core/go-rocm/internal/benchpage"
	"forge.lthn.ai/core/go-rocm/runtime/plan"
)

// Level is a number of concurrent streams, of tokens of each, and of rounds.
type Level struct{ Streams, Tokens, Rounds int }

// Input selects what to run.
type Input struct {
	// Command is the program go-rocm.
	Command string
	// Bundle is a packed bundle or a directory with a llama-server.
	Bundle string
	// Router is a directory with the libraries that make the bundle's llama-server a router.
	// Empty means that the bundle's own are tried.
	Router string
	// Real is the path of a usable model; Tiny that of one so small that a token takes
	// the server almost no time.
	Real, Tiny string
	// RealName and TinyName are their names in the table.
	RealName, TinyName string
	// Work is a directory for the models.
	Work   string
	Rounds int
	// Levels are the streams of the usable model, TinyLevels those of the small one.
	Levels, TinyLevels []Level
	// Idle is the number of idle connections.
	Idle int
	Log  io.Writer

	dir   string
	slots int
	peer  func(context.Context, *child) (*service, error) // of tests; nil: llama-server's router
}

const (
	// slotTokens is the context of a slot: the prompt and the longest stream.
	slotTokens = 128
	// maxStreams is the largest number of streams that a client keeps connections for.
	maxStreams = 64
)

// The files in the directory of models.
const (
	fileA, fileB, fileTiny = "a.gguf", "b.gguf", "tiny.gguf"
)

func (in *Input) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(in.Log, "  "+format+"\n", args...)
}

// prepare fills the directory of models: the usable one twice, as different files.
func (in *Input) prepare() error {
	in.dir = filepath.Join(in.Work, "models")
	if err := os.MkdirAll(in.dir, 0o700); err != nil {
		return err
	}
	for to, from := range map[string]string{fileA: in.Real, fileB: in.Real, fileTiny: in.Tiny} {
		if err := copyFile(filepath.Join(in.dir, to), from); err != nil {
			return err
		}
	}
	in.slots = 1
	for _, l := range append(in.Levels, in.TinyLevels...) {
		in.slots = max(in.slots, l.Streams)
	}
	return nil
}

func copyFile(to, from string) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	_, err = io.Copy(dst, src)
	return err
}

// hostMiB returns a host memory, in MiB, for one usable model and not for two.
func (in *Input) hostMiB() (uint64, error) {
	s := rocm.Settings{}
	s.Bundle, s.Slots, s.Context, s.Layers = in.Bundle, in.slots, in.slots*slotTokens, plan.CPUOnly
	s.Cache.HostLimit = -1
	p, err := rocm.Plan(filepath.Join(in.dir, fileA), s)
	if err != nil {
		return 0, err
	}
	return p.Host.Used() / plan.MiB * 3 / 2, nil
}

// start starts the service with the directory of models and loads one of them. It returns
// the service, which the caller stops, and the model's llama-server.
func (in *Input) start(ctx context.Context, file string) (ours *service, c *child, err error) {
	if err := in.prepare(); err != nil {
		return nil, nil, err
	}
	host, err := in.hostMiB()
	if err != nil {
		return nil, nil, err
	}
	if ours, err = in.startOurs(ctx, host); err != nil {
		return nil, nil, err
	}
	if _, err = ours.through(file).stream(ctx, 1); err == nil {
		c, err = ours.child(file)
	}
	if err != nil {
		return nil, nil, errors.Join(err, ours.stop())
	}
	return ours, c, nil
}

// Models measures the service and its peer.
func Models(ctx context.Context, in Input) (s page.Section, err error) {
	s = page.Section{
		Name: page.Models, Title: "Several models behind one address",
		Text: []string{
			fmt.Sprintf("`go-rocm serve --models-dir` and llama-server's router (`--models-dir --models-max 1`) with the same bundle, on TCP of the loopback interface. Their children have the same arguments, the same environment and %d slots. "+
				"The column of the child is that child itself, which the same client asks directly, or a plain llama-server with the child's program, environment and arguments where the child listens on a unix socket: both ways of a comparison begin with TCP. All are measured in turn, round after round. A ratio or a difference is the median of those of the rounds, with its confidence interval of 95 %%. The client reads the bytes of `/completion` and does not parse them.", slotCount(in)),
			fmt.Sprintf("The %s shows the cost of the gateway at its worst, because its tokens cost the server next to nothing; the goals of the streams are about %s. "+
				"A swap is a request of one token to the model that is not loaded, where there is room for one: the other one is unloaded, this one is loaded from the page cache and answers. "+
				"Memory is that of the service's own process, without its children; that of streams and connections is the growth of its anonymous memory. Idle connections have sent one request of `/health`.", in.TinyName, in.RealName),
		},
		Head: []string{"", "rounds", "go-rocm", "its child", "go-rocm to its child", "router", "its child", "router to its child", "go-rocm to router"},
	}
	ours, c, err := in.start(ctx, fileTiny)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, ours.stop()) }()
	if in.peer == nil {
		in.peer = in.startRouter
	}
	b := &both{in: &in, services: []*service{ours}, child: c, section: &s}
	router, peerErr := in.peer(ctx, c)
	switch {
	case errors.Is(peerErr, errNoRouter):
		s.Text = append(s.Text, "The llama-server of this bundle is compiled without subprocesses, so that it cannot be a router: the columns of the router are empty. "+
			"The peer of the swap is a plain llama-server that is stopped, and started with the other model, which is what a router does at least.")
	case peerErr != nil:
		return s, peerErr
	default:
		if in.Router != "" {
			s.Text = append(s.Text, "The llama-server of a bundle is compiled without subprocesses, so that it cannot be a router. Here the router and its children use two libraries, libllama-common and libllama-server-impl, "+
				"that are compiled for this benchmark alone: of the same source, with the options of the bundle and `LLAMA_SUBPROCESS=ON`. The program, all other libraries and the modules are those of the bundle.")
		}
		defer func() { err = errors.Join(err, router.stop()) }()
		b.services = append(b.services, router)
	}
	for _, step := range []func(context.Context) error{b.memory, b.firstToken, b.speeds, b.swap, b.idle} {
		if err := step(ctx); err != nil {
			return s, err
		}
	}
	return s, nil
}

func slotCount(in Input) int {
	n := 1
	for _, l := range append(in.Levels, in.TinyLevels...) {
		n = max(n, l.Streams)
	}
	return n
}
