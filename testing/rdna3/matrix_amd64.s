#include "textflag.h"

// Matrices have sixteen rows and columns. [k][line] is the layout of sources: the numbers at place k of all rows of A
// or of all columns of B follow each other. Accumulators have their rows one after the other.

// STORE_WIDE stores the eight float32 of Y as float64 and goes on behind them.
#define STORE_WIDE(Y, X) \
	VEXTRACTF128 $1, Y, X5; \
	VCVTPS2PD X, Y; \
	VCVTPS2PD X5, Y5; \
	VMOVUPD Y, (DI); \
	VMOVUPD Y5, 32(DI); \
	ADDQ $64, DI

// HALVES_LOW and HALVES_HIGH leave the halves of the lanes of Y as float32 in Y.
#define LOW_F16(Y, X) VPSLLD $16, Y, Y; VPSRLD $16, Y, Y; HIGH_PACK(Y, X)
#define HIGH_F16(Y, X) VPSRLD $16, Y, Y; HIGH_PACK(Y, X)
#define HIGH_PACK(Y, X) VPACKUSDW Y, Y, Y; VPERMQ $0xd8, Y, Y; VCVTPH2PS X, Y
#define LOW_BF16(Y, X) VPSLLD $16, Y, Y
#define HIGH_BF16(Y, X) VPSRLD $16, Y, Y; VPSLLD $16, Y, Y

// WIDEN converts eight registers with two numbers a lane to [16][16]float64. stride is the size of a register.
#define WIDEN(NAME, LOW, HIGH) \
TEXT NAME(SB), NOSPLIT, $0-24; \
	MOVQ to+0(FP), DI; \
	MOVQ from+8(FP), SI; \
	MOVQ stride+16(FP), DX; \
	MOVQ $8, CX; \
loop: \
	VMOVUPS (SI), Y0; \
	VMOVUPS 32(SI), Y1; \
	VMOVAPS Y0, Y2; \
	VMOVAPS Y1, Y3; \
	LOW(Y0, X0); \
	LOW(Y1, X1); \
	HIGH(Y2, X2); \
	HIGH(Y3, X3); \
	STORE_WIDE(Y0, X0); \
	STORE_WIDE(Y1, X1); \
	STORE_WIDE(Y2, X2); \
	STORE_WIDE(Y3, X3); \
	ADDQ DX, SI; \
	DECQ CX; \
	JNZ loop; \
	VZEROUPPER; \
	RET
// func matrixWidenF16(to *[16][16]float64, from *uint32, stride int)
WIDEN(·matrixWidenF16, LOW_F16, HIGH_F16)
// func matrixWidenBF16(to *[16][16]float64, from *uint32, stride int)
WIDEN(·matrixWidenBF16, LOW_BF16, HIGH_BF16)

// func matrixFromF32(to *[16][16]float64, from *uint32)
TEXT ·matrixFromF32(SB), NOSPLIT, $0-16
	MOVQ to+0(FP), DI
	MOVQ from+8(FP), SI
	MOVQ $32, CX
from:
	VMOVUPS (SI), Y0
	STORE_WIDE(Y0, X0)
	ADDQ $32, SI
	DECQ CX
	JNZ from
	VZEROUPPER
	RET

// func matrixToF32(to *uint32, from *[16][16]float64)
TEXT ·matrixToF32(SB), NOSPLIT, $0-16
	MOVQ to+0(FP), DI
	MOVQ from+8(FP), SI
	MOVQ $32, CX
to:
	VCVTPD2PSY (SI), X0
	VCVTPD2PSY 32(SI), X1
	VMOVUPS X0, (DI)
	VMOVUPS X1, 16(DI)
	ADDQ $64, SI
	ADDQ $32, DI
	DECQ CX
	JNZ to
	VZEROUPPER
	RET

// func matrixProduct(acc, a, b *[16][16]float64)
// It adds the product of a and b, both [k][line], to acc: two rows at a time, k by k.
TEXT ·matrixProduct(SB), NOSPLIT, $0-24
	MOVQ acc+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), DX
	MOVQ $8, R9
rows:
	VMOVUPD (DI), Y0
	VMOVUPD 32(DI), Y1
	VMOVUPD 64(DI), Y2
	VMOVUPD 96(DI), Y3
	VMOVUPD 128(DI), Y4
	VMOVUPD 160(DI), Y5
	VMOVUPD 192(DI), Y6
	VMOVUPD 224(DI), Y7
	XORQ AX, AX
places:
	VBROADCASTSD (SI)(AX*1), Y8
	VBROADCASTSD 8(SI)(AX*1), Y9
	VMOVUPD (DX)(AX*1), Y10
	VMOVUPD 32(DX)(AX*1), Y11
	VMOVUPD 64(DX)(AX*1), Y12
	VMOVUPD 96(DX)(AX*1), Y13
	VFMADD231PD Y10, Y8, Y0
	VFMADD231PD Y11, Y8, Y1
	VFMADD231PD Y12, Y8, Y2
	VFMADD231PD Y13, Y8, Y3
	VFMADD231PD Y10, Y9, Y4
	VFMADD231PD Y11, Y9, Y5
	VFMADD231PD Y12, Y9, Y6
	VFMADD231PD Y13, Y9, Y7
	ADDQ $128, AX
	CMPQ AX, $2048
	JLT places
	VMOVUPD Y0, (DI)
	VMOVUPD Y1, 32(DI)
	VMOVUPD Y2, 64(DI)
	VMOVUPD Y3, 96(DI)
	VMOVUPD Y4, 128(DI)
	VMOVUPD Y5, 160(DI)
	VMOVUPD Y6, 192(DI)
	VMOVUPD Y7, 224(DI)
	ADDQ $256, DI
	ADDQ $16, SI
	DECQ R9
	JNZ rows
	VZEROUPPER
	RET

// func matrixPairs(acc *[16][16]uint32, a, b *[8][16]uint32)
// It adds the products of integers, of which a and b have two of 16 bits at each of eight places.
TEXT ·matrixPairs(SB), NOSPLIT, $0-24
	MOVQ acc+0(FP), DI
	MOVQ a+8(FP), SI
	MOVQ b+16(FP), DX
	MOVQ $16, R9
rows:
	VMOVUPS (DI), Y0
	VMOVUPS 32(DI), Y1
	XORQ AX, AX
places:
	VPBROADCASTD (SI)(AX*1), Y2
	VPMADDWD (DX)(AX*1), Y2, Y3
	VPMADDWD 32(DX)(AX*1), Y2, Y4
	VPADDD Y3, Y0, Y0
	VPADDD Y4, Y1, Y1
	ADDQ $64, AX
	CMPQ AX, $512
	JLT places
	VMOVUPS Y0, (DI)
	VMOVUPS Y1, 32(DI)
	ADDQ $64, DI
	ADDQ $4, SI
	DECQ R9
	JNZ rows
	VZEROUPPER
	RET
