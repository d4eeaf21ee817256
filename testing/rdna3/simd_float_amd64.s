#include "simd_amd64.h"

// Arithmetic on float32.

#define ADD_F32 VADDPS Y1, Y0, Y0
#define SUB_F32 VSUBPS Y1, Y0, Y0
#define SUBREV_F32 VSUBPS Y0, Y1, Y0
#define MUL_F32 VMULPS Y1, Y0, Y0
#define FMA_F32 VFMADD213PS Y2, Y1, Y0
FORM(·vecAddF32, ADD_F32)
FORM(·vecSubF32, SUB_F32)
FORM(·vecSubrevF32, SUBREV_F32)
FORM(·vecMulF32, MUL_F32)
FORM(·vecFmaF32, FMA_F32)

// CHOOSE_F32 ends a minimum or maximum: Y0 and Y1 are the sources, Y3 the result if none is NaN. A signalling NaN
// wins, any other NaN loses.
#define CHOOSE_F32 \
	VCMPPS $3, Y0, Y0, Y4; \
	VCMPPS $3, Y1, Y1, Y5; \
	VBLENDVPS Y4, Y1, Y3, Y3; \
	VBLENDVPS Y5, Y0, Y3, Y3; \
	VPSLLD $9, Y0, Y6; \
	VPSLLD $9, Y1, Y7; \
	VPANDN Y4, Y6, Y4; \
	VPANDN Y5, Y7, Y5; \
	VPBROADCASTD quiet32<>(SB), Y6; \
	VPOR Y6, Y0, Y0; \
	VPOR Y6, Y1, Y1; \
	VBLENDVPS Y5, Y1, Y3, Y3; \
	VBLENDVPS Y4, Y0, Y3, Y0
#define MIN_F32 \
	VMINPS Y1, Y0, Y3; \
	VMINPS Y0, Y1, Y4; \
	VPOR Y4, Y3, Y3; \
	CHOOSE_F32
#define MAX_F32 \
	VMAXPS Y1, Y0, Y3; \
	VMAXPS Y0, Y1, Y4; \
	VPAND Y4, Y3, Y3; \
	CHOOSE_F32
FORM(·vecMinF32, MIN_F32)
FORM(·vecMaxF32, MAX_F32)

#define TRUNC_F32 VROUNDPS $3, Y0, Y0
#define CEIL_F32 VROUNDPS $2, Y0, Y0
#define FLOOR_F32 VROUNDPS $1, Y0, Y0
#define RNDNE_F32 VROUNDPS $0, Y0, Y0
#define FRACT_F32 \
	VROUNDPS $1, Y0, Y3; \
	VSUBPS Y3, Y0, Y0; \
	VBROADCASTSS belowOne32<>(SB), Y3; \
	VMINPS Y0, Y3, Y0
#define RCP_F32 \
	VBROADCASTSS one32<>(SB), Y3; \
	VDIVPS Y0, Y3, Y0
#define SQRT_F32 VSQRTPS Y0, Y0
// The root and the reciprocal are rounded to float64 each, and then once to float32.
#define RSQ_F32 \
	VBROADCASTSD one64<>(SB), Y5; \
	VEXTRACTF128 $1, Y0, X1; \
	VCVTPS2PD X0, Y0; \
	VCVTPS2PD X1, Y1; \
	VSQRTPD Y0, Y0; \
	VSQRTPD Y1, Y1; \
	VDIVPD Y0, Y5, Y0; \
	VDIVPD Y1, Y5, Y1; \
	VCVTPD2PSY Y0, X0; \
	VCVTPD2PSY Y1, X1; \
	VINSERTF128 $1, X1, Y0, Y0
FORM(·vecTruncF32, TRUNC_F32)
FORM(·vecCeilF32, CEIL_F32)
FORM(·vecFloorF32, FLOOR_F32)
FORM(·vecRndneF32, RNDNE_F32)
FORM(·vecFractF32, FRACT_F32)
FORM(·vecRcpF32, RCP_F32)
FORM(·vecSqrtF32, SQRT_F32)
FORM(·vecRsqF32, RSQ_F32)

// Conversions.

// WIDEN_F16 converts the low halves of the lanes of Y to float32.
#define WIDEN_F16(Y, X) \
	VPBROADCASTD low16<>(SB), Y15; \
	VPAND Y15, Y, Y; \
	VPACKUSDW Y, Y, Y; \
	VPERMQ $0xd8, Y, Y; \
	VCVTPH2PS X, Y
// NARROW_F16 converts the lanes of Y to float16 in the low halves.
#define NARROW_F16(Y, X) \
	VCVTPS2PH $0, Y, X; \
	VPMOVZXWD X, Y
#define CVT_F32_F16 WIDEN_F16(Y0, X0)
#define CVT_F16_F32 NARROW_F16(Y0, X0)
#define CVT_F32_I32 VCVTDQ2PS Y0, Y0
#define CVT_F32_U32 \
	VPSRLD $16, Y0, Y3; \
	VPBROADCASTD low16<>(SB), Y4; \
	VPAND Y4, Y0, Y0; \
	VCVTDQ2PS Y3, Y3; \
	VCVTDQ2PS Y0, Y0; \
	VBROADCASTSS pow16<>(SB), Y4; \
	VMULPS Y4, Y3, Y3; \
	VADDPS Y3, Y0, Y0
#define UBYTE_F32 \
	VPBROADCASTD low8<>(SB), Y3; \
	VPAND Y3, Y0, Y0; \
	VCVTDQ2PS Y0, Y0
#define CVT_F32_UBYTE1 VPSRLD $8, Y0, Y0; UBYTE_F32
#define CVT_F32_UBYTE2 VPSRLD $16, Y0, Y0; UBYTE_F32
#define CVT_F32_UBYTE3 VPSRLD $24, Y0, Y0; UBYTE_F32
#define CVT_I32_F32 \
	VBROADCASTSS pow31<>(SB), Y3; \
	VCMPPS $13, Y3, Y0, Y3; \
	VCMPPS $7, Y0, Y0, Y4; \
	VCVTTPS2DQ Y0, Y0; \
	VPXOR Y3, Y0, Y0; \
	VPAND Y4, Y0, Y0
#define CVT_U32_F32 \
	VPXOR Y3, Y3, Y3; \
	VMAXPS Y3, Y0, Y0; \
	VBROADCASTSS pow32<>(SB), Y3; \
	VCMPPS $13, Y3, Y0, Y5; \
	VBROADCASTSS pow31<>(SB), Y3; \
	VCMPPS $13, Y3, Y0, Y4; \
	VPAND Y4, Y3, Y3; \
	VSUBPS Y3, Y0, Y0; \
	VCVTTPS2DQ Y0, Y0; \
	VPSLLD $31, Y4, Y4; \
	VPXOR Y4, Y0, Y0; \
	VPOR Y5, Y0, Y0
FORM(·vecCvtF32F16, CVT_F32_F16)
FORM(·vecCvtF16F32, CVT_F16_F32)
FORM(·vecCvtF32I32, CVT_F32_I32)
FORM(·vecCvtF32U32, CVT_F32_U32)
FORM(·vecCvtF32Ubyte0, UBYTE_F32)
FORM(·vecCvtF32Ubyte1, CVT_F32_UBYTE1)
FORM(·vecCvtF32Ubyte2, CVT_F32_UBYTE2)
FORM(·vecCvtF32Ubyte3, CVT_F32_UBYTE3)
FORM(·vecCvtI32F32, CVT_I32_F32)
FORM(·vecCvtU32F32, CVT_U32_F32)

// Packed float16. HALVES computes both halves in float32: a sum and a product of two float16 are as good rounded
// twice as once, since float32 has more than twice the bits.

#define HALVES(OP) \
	VPSRLD $16, Y0, Y3; \
	VPSRLD $16, Y1, Y4; \
	VPSRLD $16, Y2, Y5; \
	WIDEN_F16(Y0, X0); \
	WIDEN_F16(Y1, X1); \
	WIDEN_F16(Y2, X2); \
	OP(Y0, Y1, Y2); \
	WIDEN_F16(Y3, X3); \
	WIDEN_F16(Y4, X4); \
	WIDEN_F16(Y5, X5); \
	OP(Y3, Y4, Y5); \
	NARROW_F16(Y0, X0); \
	NARROW_F16(Y3, X3); \
	VPSLLD $16, Y3, Y3; \
	VPOR Y3, Y0, Y0
#define HALF_ADD(A, B, C) VADDPS B, A, A
#define HALF_MUL(A, B, C) VMULPS B, A, A
// HALF_FMA rounds the sum to odd, so that rounding it again is as good as rounding once. The product is exact.
#define HALF_FMA(A, B, C) \
	VMULPS B, A, A; \
	VADDPS A, C, Y6; \
	VSUBPS A, Y6, Y7; \
	VSUBPS Y7, Y6, Y8; \
	VSUBPS Y8, A, Y8; \
	VSUBPS Y7, C, Y7; \
	VADDPS Y8, Y7, Y7; \
	VPXOR Y8, Y8, Y8; \
	VCMPPS $12, Y8, Y7, Y8; \
	VPXOR Y6, Y7, Y7; \
	VPSRAD $31, Y7, Y7; \
	VPBROADCASTD int1<>(SB), Y9; \
	VPOR Y9, Y7, Y7; \
	VPANDN Y9, Y6, Y9; \
	VPSUBD Y9, Y14, Y9; \
	VPAND Y9, Y8, Y8; \
	VPAND Y8, Y7, Y7; \
	VPADDD Y7, Y6, A
#define PK_ADD_F16 HALVES(HALF_ADD)
#define PK_MUL_F16 HALVES(HALF_MUL)
#define PK_FMA_F16 VPXOR Y14, Y14, Y14; HALVES(HALF_FMA)
FORM(·vecPkAddF16, PK_ADD_F16)
FORM(·vecPkMulF16, PK_MUL_F16)
FORM(·vecPkFmaF16, PK_FMA_F16)

// HALF_CHOOSE is CHOOSE_F32 on numbers that were float16: widening makes a signalling NaN quiet, so that none can be
// told any more. PK_SIGNALS leaves in Y13 the halves of Y0 and in Y12 those of Y1 that are signalling NaNs.
#define SIGNALS16(Y, TO) \
	VPBROADCASTD sign16<>(SB), TO; \
	VPANDN Y, TO, TO; \
	VPBROADCASTD nan16<>(SB), Y11; \
	VPCMPGTW Y11, TO, TO; \
	VPSLLW $6, Y, Y11; \
	VPSRAW $15, Y11, Y11; \
	VPANDN TO, Y11, TO
#define HALF_MIN(A, B, C) \
	VMINPS B, A, Y6; \
	VMINPS A, B, Y7; \
	VPOR Y7, Y6, Y6; \
	VCMPPS $3, A, A, Y7; \
	VCMPPS $3, B, B, Y8; \
	VBLENDVPS Y7, B, Y6, Y6; \
	VBLENDVPS Y8, A, Y6, A
#define HALF_MAX(A, B, C) \
	VMAXPS B, A, Y6; \
	VMAXPS A, B, Y7; \
	VPAND Y7, Y6, Y6; \
	VCMPPS $3, A, A, Y7; \
	VCMPPS $3, B, B, Y8; \
	VBLENDVPS Y7, B, Y6, Y6; \
	VBLENDVPS Y8, A, Y6, A
#define PK_CHOOSE(OP) \
	SIGNALS16(Y0, Y13); \
	SIGNALS16(Y1, Y12); \
	VMOVAPS Y0, Y9; \
	VMOVAPS Y1, Y10; \
	HALVES(OP); \
	VPBROADCASTD quiet16<>(SB), Y11; \
	VPOR Y11, Y9, Y9; \
	VPOR Y11, Y10, Y10; \
	VPBLENDVB Y12, Y10, Y0, Y0; \
	VPBLENDVB Y13, Y9, Y0, Y0
#define PK_MIN_F16 PK_CHOOSE(HALF_MIN)
#define PK_MAX_F16 PK_CHOOSE(HALF_MAX)
FORM(·vecPkMinF16, PK_MIN_F16)
FORM(·vecPkMaxF16, PK_MAX_F16)

// DOT2 adds the products of the low halves and then of the high halves, each rounded once.
#define DOT2_F32_F16 \
	VPSRLD $16, Y0, Y3; \
	VPSRLD $16, Y1, Y4; \
	WIDEN_F16(Y0, X0); \
	WIDEN_F16(Y1, X1); \
	VFMADD213PS Y2, Y1, Y0; \
	WIDEN_F16(Y3, X3); \
	WIDEN_F16(Y4, X4); \
	VFMADD231PS Y4, Y3, Y0
FORM(·vecDot2F32F16, DOT2_F32_F16)

// The least and the greatest of three.

#define MIN3F32_TWO MIN_F32; VMOVAPS Y2, Y1; MIN_F32
#define MAX3F32_TWO MAX_F32; VMOVAPS Y2, Y1; MAX_F32
FORM(·vecMin3F32, MIN3F32_TWO)
FORM(·vecMax3F32, MAX3F32_TWO)
