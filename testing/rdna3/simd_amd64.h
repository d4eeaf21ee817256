#include "textflag.h"

// The functions work on n lanes, eight at a time: on registers Y0 to Y2 with the sources a, b and c. Each form leaves
// its result in Y0. Y3 and up are free.

#define CONST(NAME, VALUE) \
	DATA NAME+0(SB)/4, VALUE; \
	GLOBL NAME(SB), RODATA|NOPTR, $4

CONST(ones<>, $0xffffffff)
CONST(sign32<>, $0x80000000)
CONST(magnitude32<>, $0x7fffffff)
CONST(sign16<>, $0x80008000)
CONST(exponent32<>, $0x7f800000)
CONST(low16<>, $0x0000ffff)
CONST(high16<>, $0xffff0000)
CONST(low24<>, $0x00ffffff)
CONST(low8<>, $0x000000ff)
CONST(low5<>, $31)
CONST(low4each16<>, $0x000f000f)
CONST(int1<>, $1)
CONST(int3<>, $3)
CONST(int32x32<>, $32)
CONST(one32<>, $0x3f800000)
CONST(two32<>, $0x40000000)
CONST(four32<>, $0x40800000)
CONST(half32<>, $0x3f000000)
CONST(belowOne32<>, $0x3f7fffff)
CONST(pow16<>, $0x47800000)
CONST(pow31<>, $0x4f000000)
CONST(pow32<>, $0x4f800000)
CONST(quiet32<>, $0x00400000)
CONST(quiet16<>, $0x02000200)
CONST(nan16<>, $0x7c007c00)

DATA laneBits<>+0(SB)/4, $1
DATA laneBits<>+4(SB)/4, $2
DATA laneBits<>+8(SB)/4, $4
DATA laneBits<>+12(SB)/4, $8
DATA laneBits<>+16(SB)/4, $16
DATA laneBits<>+20(SB)/4, $32
DATA laneBits<>+24(SB)/4, $64
DATA laneBits<>+28(SB)/4, $128
GLOBL laneBits<>(SB), RODATA|NOPTR, $32

DATA one64<>+0(SB)/8, $0x3ff0000000000000
GLOBL one64<>(SB), RODATA|NOPTR, $8

#define FORM(NAME, BODY) \
TEXT NAME(SB), NOSPLIT, $0-40; \
	MOVQ d+0(FP), DI; \
	MOVQ a+8(FP), SI; \
	MOVQ b+16(FP), DX; \
	MOVQ c+24(FP), R8; \
	MOVQ n+32(FP), CX; \
	SHLQ $2, CX; \
	XORQ AX, AX; \
loop: \
	VMOVUPS (SI)(AX*1), Y0; \
	VMOVUPS (DX)(AX*1), Y1; \
	VMOVUPS (R8)(AX*1), Y2; \
	BODY; \
	VMOVUPS Y0, (DI)(AX*1); \
	ADDQ $32, AX; \
	CMPQ AX, CX; \
	JLT loop; \
	VZEROUPPER; \
	RET

// LOW16 clears the upper halves of the lanes.
#define LOW16(Y) VPBROADCASTD low16<>(SB), Y15; VPAND Y15, Y, Y
