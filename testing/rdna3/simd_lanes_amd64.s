#include "simd_amd64.h"

// What is done to sources before and to results after.

#define FLUSH32 \
	VPBROADCASTD exponent32<>(SB), Y3; \
	VPAND Y3, Y0, Y3; \
	VPXOR Y4, Y4, Y4; \
	VPCMPEQD Y4, Y3, Y3; \
	VPBROADCASTD magnitude32<>(SB), Y4; \
	VPAND Y4, Y3, Y3; \
	VPANDN Y0, Y3, Y0
#define CLAMP32 \
	VPXOR Y3, Y3, Y3; \
	VMAXPS Y3, Y0, Y0; \
	VBROADCASTSS one32<>(SB), Y3; \
	VMINPS Y3, Y0, Y0
#define TIMES2 VBROADCASTSS two32<>(SB), Y3; VMULPS Y3, Y0, Y0
#define TIMES4 VBROADCASTSS four32<>(SB), Y3; VMULPS Y3, Y0, Y0
#define HALVED VBROADCASTSS half32<>(SB), Y3; VMULPS Y3, Y0, Y0
#define HIGH_HALF VPSRLD $16, Y0, Y0
#define TO_TOP VPSLLD $16, Y0, Y0
#define LOW_TWICE LOW16(Y0); VPSLLD $16, Y0, Y1; VPOR Y1, Y0, Y0
#define HIGH_TWICE VPSRLD $16, Y0, Y0; VPSLLD $16, Y0, Y1; VPOR Y1, Y0, Y0
#define SWAPPED VPSRLD $16, Y0, Y1; VPSLLD $16, Y0, Y0; VPOR Y1, Y0, Y0
// The result of 16 bits goes to one half of the destination, which is b.
#define TO_LOW LOW16(Y0); VPBROADCASTD high16<>(SB), Y3; VPAND Y3, Y1, Y1; VPOR Y1, Y0, Y0
#define TO_HIGH VPSLLD $16, Y0, Y0; LOW16(Y1); VPOR Y1, Y0, Y0
#define MOVE VMOVAPS Y0, Y0
FORM(·vecFlush32, FLUSH32)
FORM(·vecClamp32, CLAMP32)
FORM(·vecTimes2, TIMES2)
FORM(·vecTimes4, TIMES4)
FORM(·vecHalved, HALVED)
FORM(·vecHighHalf, HIGH_HALF)
FORM(·vecToTop, TO_TOP)
FORM(·vecLowTwice, LOW_TWICE)
FORM(·vecHighTwice, HIGH_TWICE)
FORM(·vecSwapped, SWAPPED)
FORM(·vecToLow, TO_LOW)
FORM(·vecToHigh, TO_HIGH)
FORM(·vecMove, MOVE)

// func laneFill(d *uint32, x uint32, n int)
TEXT ·laneFill(SB), NOSPLIT, $0-24
	MOVQ d+0(FP), DI
	MOVQ n+16(FP), CX
	MOVL x+8(FP), AX
	VMOVD AX, X0
	VPBROADCASTD X0, Y0
	SHLQ $2, CX
	XORQ AX, AX
fill:
	VMOVUPS Y0, (DI)(AX*1)
	ADDQ $32, AX
	CMPQ AX, CX
	JLT fill
	VZEROUPPER
	RET

// func laneSelect(d, a, b *uint32, mask uint64, n int)
// It sets d to b in the lanes of the mask, and to a in the others.
TEXT ·laneSelect(SB), NOSPLIT, $0-40
	MOVQ d+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), DX
	MOVQ mask+24(FP), BX
	MOVQ n+32(FP), CX
	VMOVUPS laneBits<>(SB), Y4
	SHLQ $2, CX
	XORQ AX, AX
select:
	VMOVQ BX, X3
	VPBROADCASTD X3, Y3
	VPAND Y4, Y3, Y3
	VPCMPEQD Y4, Y3, Y3
	VMOVUPS (SI)(AX*1), Y0
	VMOVUPS (DX)(AX*1), Y1
	VBLENDVPS Y3, Y1, Y0, Y0
	VMOVUPS Y0, (DI)(AX*1)
	SHRQ $8, BX
	ADDQ $32, AX
	CMPQ AX, CX
	JLT select
	VZEROUPPER
	RET

// TEST compares the lanes of a and b, and returns a bit a lane.
#define TEST(NAME, BODY) \
TEXT NAME(SB), NOSPLIT, $0-32; \
	MOVQ a+0(FP), SI; \
	MOVQ b+8(FP), DX; \
	MOVQ n+16(FP), R8; \
	XORQ BX, BX; \
	XORQ CX, CX; \
loop: \
	VMOVUPS (SI)(CX*4), Y0; \
	VMOVUPS (DX)(CX*4), Y1; \
	BODY; \
	VMOVMSKPS Y0, AX; \
	SHLQ CX, AX; \
	ORQ AX, BX; \
	ADDQ $8, CX; \
	CMPQ CX, R8; \
	JLT loop; \
	MOVQ BX, ret+24(FP); \
	VZEROUPPER; \
	RET
#define LT_F32 VCMPPS $17, Y1, Y0, Y0
#define LE_F32 VCMPPS $18, Y1, Y0, Y0
#define EQ_F32 VCMPPS $0, Y1, Y0, Y0
#define LG_F32 VCMPPS $12, Y1, Y0, Y0
#define O_F32 VCMPPS $7, Y1, Y0, Y0
#define LT_I32 VPCMPGTD Y0, Y1, Y0
#define LT_U32 \
	VPBROADCASTD sign32<>(SB), Y3; \
	VPXOR Y3, Y0, Y0; \
	VPXOR Y3, Y1, Y1; \
	VPCMPGTD Y0, Y1, Y0
#define EQ_I32 VPCMPEQD Y1, Y0, Y0
TEST(·testLtF32, LT_F32)
TEST(·testLeF32, LE_F32)
TEST(·testEqF32, EQ_F32)
TEST(·testLgF32, LG_F32)
TEST(·testOF32, O_F32)
TEST(·testLtI32, LT_I32)
TEST(·testLtU32, LT_U32)
TEST(·testEqI32, EQ_I32)

// CARRY runs an addition or subtraction with a carry or borrow from the lanes of mask, and returns that of the result.
#define CARRY(NAME, BODY) \
TEXT NAME(SB), NOSPLIT, $0-48; \
	MOVQ d+0(FP), DI; \
	MOVQ a+8(FP), SI; \
	MOVQ b+16(FP), DX; \
	MOVQ mask+24(FP), R9; \
	MOVQ n+32(FP), R8; \
	VMOVUPS laneBits<>(SB), Y8; \
	XORQ BX, BX; \
	XORQ CX, CX; \
loop: \
	VMOVQ R9, X2; \
	VPBROADCASTD X2, Y2; \
	VPAND Y8, Y2, Y2; \
	VPCMPEQD Y8, Y2, Y2; \
	VMOVUPS (SI)(CX*4), Y0; \
	VMOVUPS (DX)(CX*4), Y1; \
	BODY; \
	VMOVUPS Y0, (DI)(CX*4); \
	VMOVMSKPS Y3, AX; \
	XORQ $0xff, AX; \
	SHLQ CX, AX; \
	ORQ AX, BX; \
	SHRQ $8, R9; \
	ADDQ $8, CX; \
	CMPQ CX, R8; \
	JLT loop; \
	MOVQ BX, ret+40(FP); \
	VZEROUPPER; \
	RET
// No carry is where the sum is at least a, or above it with a carry in.
#define ADD_CARRY \
	VPADDD Y1, Y0, Y3; \
	VPSUBD Y2, Y3, Y3; \
	VPMAXUD Y3, Y0, Y4; \
	VPCMPEQD Y3, Y4, Y4; \
	VPCMPEQD Y3, Y0, Y5; \
	VPAND Y2, Y5, Y5; \
	VMOVAPS Y3, Y0; \
	VPANDN Y4, Y5, Y3
// No borrow is where a is at least b, or above it with a borrow in.
#define SUB_BORROW \
	VPMAXUD Y1, Y0, Y4; \
	VPCMPEQD Y0, Y4, Y4; \
	VPCMPEQD Y1, Y0, Y5; \
	VPAND Y2, Y5, Y5; \
	VPANDN Y4, Y5, Y3; \
	VPSUBD Y1, Y0, Y0; \
	VPADDD Y2, Y0, Y0
CARRY(·laneAddCarry, ADD_CARRY)
CARRY(·laneSubBorrow, SUB_BORROW)

// func hasF16C() bool
TEXT ·hasF16C(SB), NOSPLIT, $0-1
	MOVL $1, AX
	XORL CX, CX
	CPUID
	SHRL $29, CX
	ANDL $1, CX
	MOVB CX, ret+0(FP)
	RET
