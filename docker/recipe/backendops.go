package recipe

import (
	"context"
	_ "embed" // the script is part of the program
	"path/filepath"
)

//go:embed backendops.sh
var backendOpsScript string

// backendOpsName names the stage and its program, llama.cpp's test-backend-ops: it computes
// operations with a backend and with the CPU, and compares the results. No bundle contains it.
const backendOpsName = "test-backend-ops"

// backendOps is the stage that compiles the test.
func backendOps() coreLink {
	return coreLink{name: backendOpsName, script: backendOpsScript, options: []string{"-DLLAMA_BUILD_TESTS=ON"}}
}

// BackendOps compiles test-backend-ops with the options of the core, links it with the core's
// libraries, and returns the path of the program. It runs beside the files of a bundle.
func (r *Recipe) BackendOps(ctx context.Context) (string, error) {
	res, err := r.linkWithCore(ctx, backendOps())
	if err != nil {
		return "", err
	}
	return filepath.Join(res.Dir, backendOpsName), nil
}
