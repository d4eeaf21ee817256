package recipe

import "testing"

func TestIntegerTypes(t *testing.T) {
	for text, want := range map[string]bool{
		"CUDA_R_8I": true, "HIPBLAS_R_8I": true, "HIP_R_32I": true, "rocblas_datatype_i8_r": true, "rocblas_datatype_i32_r": true,
		"CUDA_R_16F": false, "HIPBLAS_R_32F": false, "CUDA_R_16BF": false, "block_q8_0": false, "GGML_TYPE_I8": false,
	} {
		if got := integerTypes.MatchString("x = " + text + ";"); got != want {
			t.Errorf("%s: got %v", text, got)
		}
	}
}
