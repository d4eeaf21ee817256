package recipe

import (
	"context"
	_ "embed" // the script is part of the program
)

//go:embed router.sh
var routerScript string

// routerName names the stage of the libraries that make llama-server a router. No bundle contains
// them: what ships starts no programs.
const routerName = "llama-router"

// router is the stage that compiles these libraries. Subprocesses would give libmtmd video, which
// the core's lacks.
func router() coreLink {
	return coreLink{name: routerName, script: routerScript, options: []string{"-DLLAMA_SUBPROCESS=ON", "-DMTMD_VIDEO=OFF"}}
}

// Router compiles the two libraries of llama-server that can start subprocesses, links them with
// the core's libraries, and returns their directory. In front of a bundle's libraries they make its
// llama-server a router, the peer of the benchmark of several models.
func (r *Recipe) Router(ctx context.Context) (string, error) {
	res, err := r.linkWithCore(ctx, router())
	if err != nil {
		return "", err
	}
	return res.Dir, nil
}
