package rdna3

import "math"

// A vecFunc computes n lanes of an instruction whose operands have 32 bits or fewer, in the mode of compiled kernels.
// It writes all lanes, also those that EXEC excludes.
type vecFunc func(d, a, b, c *uint32, n int)

// vecForms has the fast forms by the name of the instruction, without what says that it is half of a dual one.
var vecForms = map[string]vecFunc{
	"v_add_f32": vecAddF32, "v_sub_f32": vecSubF32, "v_subrev_f32": vecSubrevF32, "v_mul_f32": vecMulF32,
	"v_fma_f32": vecFmaF32, "v_fmac_f32": vecFmaF32, "v_fmaak_f32": vecFmaF32, "v_fmamk_f32": vecFmaF32,
	"v_min_f32": vecMinF32, "v_max_f32": vecMaxF32,
	"v_trunc_f32": vecTruncF32, "v_ceil_f32": vecCeilF32, "v_floor_f32": vecFloorF32, "v_rndne_f32": vecRndneF32,
	"v_fract_f32": vecFractF32, "v_rcp_f32": vecRcpF32, "v_rcp_iflag_f32": vecRcpF32, "v_sqrt_f32": vecSqrtF32,
	"v_rsq_f32":   vecRsqF32,
	"v_exp_f32":   eachFloat(math.Exp2),
	"v_log_f32":   eachFloat(math.Log2),
	"v_ldexp_f32": vecLdexpF32,

	"v_cvt_f32_f16": vecCvtF32F16, "v_cvt_f16_f32": vecCvtF16F32, "v_cvt_f32_i32": vecCvtF32I32,
	"v_cvt_f32_u32": vecCvtF32U32, "v_cvt_i32_f32": vecCvtI32F32, "v_cvt_u32_f32": vecCvtU32F32,
	"v_cvt_f32_ubyte0": vecCvtF32Ubyte0, "v_cvt_f32_ubyte1": vecCvtF32Ubyte1, "v_cvt_f32_ubyte2": vecCvtF32Ubyte2,
	"v_cvt_f32_ubyte3": vecCvtF32Ubyte3, "v_cvt_i32_i16": vecCvtI32I16, "v_cvt_u32_u16": vecCvtU32U16,
	"v_pack_b32_f16": vecPackB32F16,

	"v_add_f16": vecPkAddF16, "v_mul_f16": vecPkMulF16, "v_fma_f16": vecPkFmaF16, "v_fmac_f16": vecPkFmaF16,
	"v_min_f16": vecPkMinF16, "v_max_f16": vecPkMaxF16, "v_dot2_f32_f16": vecDot2F32F16, "v_dot2acc_f32_f16": vecDot2F32F16,

	"v_mov_b32": vecMove, "v_not_b32": vecNotB32, "v_and_b32": vecAndB32, "v_or_b32": vecOrB32, "v_xor_b32": vecXorB32,
	"v_xnor_b32": vecXnorB32, "v_lshlrev_b32": vecLshlrevB32, "v_lshrrev_b32": vecLshrrevB32, "v_ashrrev_i32": vecAshrrevI32,
	"v_add_nc_u32": vecAddU32, "v_sub_nc_u32": vecSubU32, "v_subrev_nc_u32": vecSubrevU32, "v_add_nc_i32": vecAddU32,
	"v_sub_nc_i32": vecSubU32, "v_mul_lo_u32": vecMulLoU32, "v_mul_u32_u24": vecMulU32U24, "v_mad_u32_u24": vecMadU32U24,
	"v_mul_i32_i24": vecMulI32I24, "v_mad_i32_i24": vecMadI32I24, "v_mul_hi_u32": vecMulHiU32, "v_mul_hi_i32": vecMulHiI32,
	"v_mad_u32_u16": vecMadU32U16, "v_mad_i32_i16": vecMadI32I16,
	"v_add3_u32": vecAdd3U32, "v_lshl_add_u32": vecLshlAddU32, "v_add_lshl_u32": vecAddLshlU32, "v_lshl_or_b32": vecLshlOrB32,
	"v_and_or_b32": vecAndOrB32, "v_or3_b32": vecOr3B32, "v_xor3_b32": vecXor3B32, "v_xad_u32": vecXadU32,
	"v_bfi_b32": vecBfiB32, "v_bfe_u32": vecBfeU32, "v_bfe_i32": vecBfeI32, "v_bfm_b32": vecBfmB32,
	"v_alignbit_b32": vecAlignbitB32, "v_alignbyte_b32": vecAlignbyteB32, "v_perm_b32": vecPermB32,
	"v_min_i32": vecMinI32, "v_max_i32": vecMaxI32, "v_min_u32": vecMinU32, "v_max_u32": vecMaxU32,
	"v_min3_i32":         vecMin3I32,
	"v_max3_i32":         vecMax3I32,
	"v_min3_u32":         vecMin3U32,
	"v_max3_u32":         vecMax3U32,
	"v_minmax_i32":       vecMinmaxI32,
	"v_maxmin_i32":       vecMaxminI32,
	"v_minmax_u32":       vecMinmaxU32,
	"v_maxmin_u32":       vecMaxminU32,
	"v_min3_f32":         vecMin3F32,
	"v_max3_f32":         vecMax3F32,
	"v_mbcnt_lo_u32_b32": vecMbcntLo,

	"v_lshlrev_b16": vecPkLshlrevB16, "v_lshrrev_b16": vecPkLshrrevB16, "v_ashrrev_i16": vecPkAshrrevI16,
	"v_add_nc_u16": vecPkAddU16, "v_sub_nc_u16": vecPkSubU16, "v_add_nc_i16": vecPkAddU16, "v_sub_nc_i16": vecPkSubU16,
	"v_mul_lo_u16": vecPkMulLoU16, "v_mad_u16": vecPkMadU16, "v_mad_i16": vecPkMadU16, "v_min_i16": vecPkMinI16,
	"v_max_i16": vecPkMaxI16, "v_min_u16": vecPkMinU16, "v_max_u16": vecPkMaxU16,
	"v_and_b16": vecAndB32, "v_or_b16": vecOrB32, "v_xor_b16": vecXorB32, "v_mov_b16": vecMove, "v_not_b16": vecNotB32,
}

// pkForms has the fast forms of the instructions on both halves of a register.
var pkForms = map[string]vecFunc{
	"v_pk_add_f16": vecPkAddF16, "v_pk_mul_f16": vecPkMulF16, "v_pk_fma_f16": vecPkFmaF16, "v_pk_fmac_f16": vecPkFmaF16,
	"v_pk_min_f16": vecPkMinF16, "v_pk_max_f16": vecPkMaxF16,
	"v_pk_add_u16": vecPkAddU16, "v_pk_add_i16": vecPkAddU16, "v_pk_sub_u16": vecPkSubU16, "v_pk_sub_i16": vecPkSubU16,
	"v_pk_mul_lo_u16": vecPkMulLoU16, "v_pk_mad_u16": vecPkMadU16, "v_pk_mad_i16": vecPkMadU16,
	"v_pk_lshlrev_b16": vecPkLshlrevB16, "v_pk_lshrrev_b16": vecPkLshrrevB16, "v_pk_ashrrev_i16": vecPkAshrrevI16,
	"v_pk_min_i16": vecPkMinI16, "v_pk_max_i16": vecPkMaxI16, "v_pk_min_u16": vecPkMinU16, "v_pk_max_u16": vecPkMaxU16,
}

// dotForms has the sums of products of bytes and of nibbles, by which side is signed: a, then b.
var dotForms = map[string][4]vecFunc{
	"v_dot4_i32_iu8": {vecDot4UU, vecDot4SU, vecDot4US, vecDot4SS},
	"v_dot8_i32_iu4": {vecDot8UU, vecDot8SU, vecDot8US, vecDot8SS},
	"v_dot4_u32_u8":  {vecDot4UU, vecDot4UU, vecDot4UU, vecDot4UU},
	"v_dot8_u32_u4":  {vecDot8UU, vecDot8UU, vecDot8UU, vecDot8UU},
}

// A vecTest compares n lanes of two operands and returns a bit a lane.
type vecTest struct {
	f            func(a, b *uint32, n int) uint64
	swap, invert bool
}

// vecTests has the fast comparisons by the last two parts of their name.
var vecTests = func() map[string]vecTest {
	m := map[string]vecTest{}
	for _, t := range []struct {
		types  []string
		lt, eq func(a, b *uint32, n int) uint64
	}{
		{[]string{"i32", "i16"}, testLtI32, testEqI32},
		{[]string{"u32", "u16"}, testLtU32, testEqI32},
	} {
		for _, n := range t.types {
			m["lt_"+n], m["gt_"+n] = vecTest{f: t.lt}, vecTest{f: t.lt, swap: true}
			m["ge_"+n], m["le_"+n] = vecTest{f: t.lt, invert: true}, vecTest{f: t.lt, swap: true, invert: true}
			m["eq_"+n], m["ne_"+n] = vecTest{f: t.eq}, vecTest{f: t.eq, invert: true}
		}
	}
	for _, n := range []string{"f32", "f16"} {
		m["lt_"+n], m["gt_"+n] = vecTest{f: testLtF32}, vecTest{f: testLtF32, swap: true}
		m["le_"+n], m["ge_"+n] = vecTest{f: testLeF32}, vecTest{f: testLeF32, swap: true}
		m["nlt_"+n], m["ngt_"+n] = vecTest{f: testLtF32, invert: true}, vecTest{f: testLtF32, swap: true, invert: true}
		m["nle_"+n], m["nge_"+n] = vecTest{f: testLeF32, invert: true}, vecTest{f: testLeF32, swap: true, invert: true}
		m["eq_"+n], m["neq_"+n] = vecTest{f: testEqF32}, vecTest{f: testEqF32, invert: true}
		m["lg_"+n], m["nlg_"+n] = vecTest{f: testLgF32}, vecTest{f: testLgF32, invert: true}
		m["o_"+n], m["u_"+n] = vecTest{f: testOF32}, vecTest{f: testOF32, invert: true}
	}
	return m
}()
