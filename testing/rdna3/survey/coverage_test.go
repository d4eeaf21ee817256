package survey

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFamilyOf names families after functions, with the type of the weights, and after the types of Tensile's solutions.
func TestFamilyOf(t *testing.T) {
	for kernel, want := range map[string]string{
		"_ZL9scale_f32PKfPfffl": "scale_f32",
		"_ZL13mul_mat_vec_qIL9ggml_type8ELi1ELb0ELb0ELb0EEvPKvS2_":               "mul_mat_vec_q Q8_0",
		"_ZL18flash_attn_ext_vecILi64ELi1EL9ggml_type8ELS0_8ELb0EEvPKcS2_":       "flash_attn_ext_vec Q8_0",
		"_ZL11k_bin_bcastIXadL_ZL6op_addffEEfffJEEvPKT0_":                        "k_bin_bcast",
		"_ZN12_GLOBAL__N_123geam_zero_matrix_deviceIiPfEEvT_":                    "geam_zero_matrix_device",
		"_ZN7rocprim6detail17ROCPRIM_400000_NS17block_sort_kernelILj256EEEvPT_":  "block_sort_kernel",
		"Cijk_Ailk_Bljk_HHS_BH_MT128x128x16_MI16x16x16x1_SE_1LDSB0_APM1":         "Cijk_Ailk_Bljk_HHS_BH",
		"Cijk_Alik_Bljk_S_B_Bias_AS_SAV_UserArgs_MT64x64x8_MI16x16x1_1_SN_LDSB0": "Cijk_Alik_Bljk_S_B_Bias_AS_SAV_UserArgs",
		"__amd_rocclr_fillBufferAligned":                                         "__amd_rocclr_fillBufferAligned",
		"_Z99short":                                                              "_Z99short",
	} {
		if got := FamilyOf(kernel); got != want {
			t.Errorf("%s is of the family %q, and not %q", kernel, got, want)
		}
	}
}

// TestCoverage counts kernels of two targets, of which some were executed: code that is there twice counts once, the same
// name in two code objects twice, and what is not in the bundle is listed.
func TestCoverage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "executed")
	text := "gfx1100 aa _ZL3addv\ngfx1100 aa _ZL3addv\ngfx1101 ac _ZL3mulv\ngfx1100 ff __amd_copy\ngfx1100 dd Cijk_A_MT1\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	executed, err := ReadExecuted(path)
	if err != nil || len(executed) != 4 {
		t.Fatalf("%v, %v", executed, err)
	}
	n := counter{executed: executed, files: map[Executed]string{}, families: map[[2]string]*Family{}}
	for _, k := range []struct {
		file string
		Executed
	}{
		{"libggml-hip.so", Executed{"gfx1100", "aa", "_ZL3addv"}},
		{"libggml-hip.so", Executed{"gfx1100", "aa", "_ZL3addv"}},
		{"libggml-hip.so", Executed{"gfx1100", "ab", "_ZL3addv"}},
		{"libggml-hip.so", Executed{"gfx1101", "ac", "_ZL3addv"}},
		{"libggml-hip.so", Executed{"gfx1101", "ac", "_ZL3mulv"}},
		{"Tensile_gfx1100.co", Executed{"gfx1100", "dd", "Cijk_A_MT1"}},
		{"Tensile_gfx1100.co", Executed{"gfx1100", "dd", "Cijk_A_MT2"}},
		{"librocblas.so.5", Executed{"gfx1100", "ee", "_Z4gemvv"}},
	} {
		n.add(k.file, k.Executed)
	}
	c := n.coverage()
	var b strings.Builder
	if err := c.WriteTotals(&b); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteFamilies(&b, PartGGML); err != nil {
		t.Fatal(err)
	}
	want := `| kernels of | gfx1100 | gfx1101 |
|---|---|---|
| Tensile | 1 of 2 | 0 of 0 |
| libggml-hip | 1 of 2 | 1 of 2 |
| rocBLAS | 0 of 1 | 0 of 0 |
| family | gfx1100 | gfx1101 |
|---|---|---|
| add | 1 of 2 | 0 of 1 |
| mul | 0 of 0 | 1 of 1 |
`
	if b.String() != want {
		t.Errorf("the tables are\n%s", b.String())
	}
	if len(c.Others) != 1 || c.Others[0].Kernel != "__amd_copy" {
		t.Errorf("not of the bundle are %v", c.Others)
	}
	if file := c.Files[Executed{"gfx1100", "dd", "Cijk_A_MT1"}]; file != "Tensile_gfx1100.co" {
		t.Errorf("a solution is of %q", file)
	}
}

// TestReadExecutedRejectsOtherLines checks that a line that was cut is no kernel, and that a missing file has none.
func TestReadExecutedRejectsOtherLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "executed")
	if executed, err := ReadExecuted(path); err != nil || len(executed) != 0 {
		t.Errorf("without a file: %v, %v", executed, err)
	}
	for _, text := range []string{"gfx1100 aa\n", "gfx1100  kernel\n", "kernel\n", "gfx90a aa kernel\n", "\n"} {
		if err := os.WriteFile(path, []byte("gfx1100 aa kernel\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadExecuted(path); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
