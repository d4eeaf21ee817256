#!/usr/bin/env python3
"""Writes table.txt, the instructions of RDNA 3, from the facts that AMD publishes as machine-readable XML.

The PyPI package tinygrad (0.14.0) carries these facts as Python data: the number of each opcode, its
encoding, and the width and number format of each operand.

    pip download --no-deps tinygrad==0.14.0 && unzip tinygrad-0.14.0-py3-none-any.whl -d DIR
    PYTHONPATH=DIR python3 table.py > table.txt

A line is: format, opcode, name, then the destination and the sources in the order of the assembler
as number format and width: "f32", "2f16" for two packed numbers, "mask" for a bit a lane. "-" is a destination that does not exist.
"""
from tinygrad.runtime.autogen.amd.rdna3 import enum
from tinygrad.runtime.autogen.amd.rdna3.operands import OPERANDS

FORMATS = ["SOP1", "SOP2", "SOPC", "SOPK", "SOPP", "SMEM", "VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P",
           "VOPD", "DS", "FLAT", "GLOBAL", "SCRATCH", "MUBUF"]
DESTINATIONS = ["vdst", "sdst", "vdsty", "sdata"]
SOURCES = ["ssrc0", "ssrc1", "simm16", "src0", "vsrc0", "srcy0", "src1", "vsrc1", "vsrcy1", "src2", "vdata",
           "addr", "data", "data0", "data1"]


def kind(operand):
    """Returns the number format and width of an operand: f32, or 2f16 for two packed f16."""
    number, bits, where = operand
    if where.name == "OPR_LABEL":
        return "label16"
    if number.name == "FMT_NUM_M64":
        return "mask"
    name = number.name.removeprefix("FMT_").removeprefix("NUM_").lower()
    if name.startswith("pk"):
        count, letters = name.removeprefix("pk").split("_")
        return count + letters
    if name.startswith("wmma"):
        name = name.split("_")[-1]
    letters = name.rstrip("0123456789")
    return f"{ {'any': 'b'}.get(letters, letters) }{bits}"


def line(fmt, op):
    operands = OPERANDS.get(op, {})
    name = op.name.lower().removesuffix("_e32").removesuffix("_e64")
    dst = [kind(operands[k]) for k in DESTINATIONS if k in operands]
    src = [kind(operands[k]) for k in SOURCES if k in operands]
    return " ".join([fmt, str(op.value), name, dst[0] if dst else "-", *src])


def main():
    for fmt in FORMATS:
        for op in sorted(getattr(enum, fmt + "Op"), key=lambda op: op.value):
            # Opcodes below 512 of VOP3 are those of VOPC, VOP2 and VOP1 in the longer encoding.
            if fmt == "VOP3" and op.value < 512 or fmt == "VOP3SD" and op.value < 512:
                continue
            if op.name.startswith("GLOBAL_") and fmt == "FLAT":
                continue
            print(line(fmt, op))


if __name__ == "__main__":
    main()
