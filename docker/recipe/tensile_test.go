package recipe

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"forge.lthn.ai/core/go-rocm/docker/tensile"
)

// The recipe copies those files of rocBLAS's directory that the reviewed list for both targets names.
func TestTensileFilesTaken(t *testing.T) {
	lines := func(name string) []string {
		b, err := os.ReadFile(filepath.Join("..", "tensile", "testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	sel, err := tensile.Select(lines("rocblas-4.4.1-library.txt"), targets(t, "gfx1100", "gfx1101"), isUnusedTensile)
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, f := range sel.Keep {
		got = append(got, f.Name)
	}
	for _, l := range lines("tensile-keep.golden") {
		fields := strings.Fields(l)
		want = append(want, fields[len(fields)-1])
	}
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("taken: %d files, want %d\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
}

func TestOtherTypes(t *testing.T) {
	for text, want := range map[string]bool{
		"CUDA_R_8I": true, "HIPBLAS_R_8I": true, "HIP_R_32I": true, "rocblas_datatype_i8_r": true, "rocblas_datatype_i32_r": true,
		"CUDA_R_64F": true, "HIPBLAS_R_64F": true, "HIP_R_64F": true, "CUDA_C_32F": true, "HIPBLAS_C_64F": true, "HIP_C_16BF": true, "CUDA_C_8I": true,
		"CUDA_R_4I": true, "CUDA_R_64U": true, "CUBLAS_COMPUTE_64F": true, "HIPBLAS_COMPUTE_32I": true, "CUBLAS_COMPUTE_32I_PEDANTIC": true,
		"rocblas_datatype_f64_r": true, "rocblas_datatype_f32_c": true, "rocblas_datatype_f64_c": true, "rocblas_datatype_i8_c": true,
		"rocblas_datatype_f32_r": false, "CUBLAS_COMPUTE_32F": false, "HIPBLAS_COMPUTE_32F_FAST_16F": false, "HIPBLAS_R_16B": false, "CUDA_R_8F_E4M3": false,
		"CUDA_R_16F": false, "HIPBLAS_R_32F": false, "CUDA_R_16BF": false, "block_q8_0": false, "GGML_TYPE_I8": false,
	} {
		if got := excludedTypes.MatchString("x = " + text + ";"); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}
