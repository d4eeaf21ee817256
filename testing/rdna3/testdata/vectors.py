#!/usr/bin/env python3
"""Writes vectors.txt: operands of instructions and the results by AMD's pseudo-code, which tinygrad carries as data.

    pip download --no-deps tinygrad==0.14.0 && unzip tinygrad-0.14.0-py3-none-any.whl -d DIR
    PYTHONPATH=DIR python3 vectors.py > vectors.txt

A line "= NAME" begins the vectors of an instruction; "~" after it allows the last bit to differ. A vector has the
sources, the destination from before and the lane's bit of VCC; then the result and the bit that the instruction
writes to VCC or SCC. Numbers are hexadecimal; "nan" is any NaN.
"""
import math
import random
import re
import sys

from pseudocode import Float, Int, Machine, from_number
from tinygrad.runtime.autogen.amd.rdna3.str_pcode import PCODE

VECTORS = 32
FLOATS = {
    16: [0, 0x8000, 0x3c00, 0xbc00, 1, 0x8001, 0x3ff, 0x400, 0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00, 0x7d01, 0x3800, 0x3e00, 0x4100, 0xc100],
    32: [0, 0x80000000, 0x3f800000, 0xbf800000, 1, 0x80000001, 0x7fffff, 0x800000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
         0xff800000, 0x7fc00000, 0x7fa00000, 0x3f000000, 0x3fc00000, 0x40200000, 0xc0200000, 0x477fe000, 0x477ff000, 0x4f000000, 0x4f800000],
    64: [0, 1 << 63, 0x3ff << 52, 0xbff << 52, 1, 0xfffffffffffff, 1 << 52, 0x7fefffffffffffff, 0x7ff << 52, 0xfff << 52,
         0x7ff8 << 48, 0x7ff4 << 48, 0x3fe << 52, 0x3ff8 << 48, 0x4004 << 48, 0xc004 << 48, 0x41efffffffe00000],
}
INTS = [0, 1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 63, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000,
        0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff]
# The card computes these with an error of about one bit.
APPROXIMATE = re.compile(r"v_(rcp|rsq|sqrt|exp|log|sin|cos)_|v_rcp_iflag")
MACHINES = {"IEEE": Int(1)}


def operand(kind, rng):
    """Returns a number of the table's kind, of which a third are from the edges."""
    count, letters, bits = re.fullmatch(r"(\d*)([a-z]+)(\d+)", kind).groups()
    n, bits = int(count or 1), int(bits)
    out = 0
    for i in range(n):
        if letters == "f" and bits in FLOATS and rng.random() < 0.9:
            x = rng.choice(FLOATS[bits]) if rng.random() < 0.45 else near_one(bits, rng)
        elif rng.random() < 0.4:
            x = rng.choice(INTS)
        else:
            x = rng.getrandbits(64)
        out |= (x & (1 << bits) - 1) << i * bits
    return out


def near_one(bits, rng):
    """Returns a float of moderate size, so that sums and products are ordinary numbers."""
    exp, man = {16: (15, 10), 32: (127, 23), 64: (1023, 52)}[bits]
    return rng.getrandbits(1) << bits - 1 | exp + rng.randint(-6, 6) << man | rng.getrandbits(man)


def parse_table(path):
    for line in open(path):
        fmt, code, name, dst, *src = line.split()
        yield fmt, int(code), name, dst, src


def variables(src, values, old, flag, lane):
    # Each lane has one bit of VCC; the pseudo-code numbers it by laneId.
    v = {f"S{n}": Int(x, 32 if kind_bits(src[n]) < 32 else kind_bits(src[n]), False) for n, x in enumerate(values)}
    v.update(D0=Int(old, 64, False), D1=Int(0, 64, False), VCC=Int(flag << lane, 64, False), laneId=Int(lane), SCC=Int(flag, 1, False),
             EXEC=Int(0xf0f0f0f0, 64, False), SIMM16=Int(values[0], 16, False) if len(values) == 1 else Int(0),
             SIMM32=Int(values[2] if len(values) > 2 else 0, 32, False), environment={"WAVE_MODE": MACHINES},
             OPSEL=Int(0), OPSEL_HI=Int(0), NEG=Int(0))
    return v


def kind_bits(kind):
    count, _, bits = re.fullmatch(r"(\d*)([a-z]+)(\d+)", kind).groups()
    return int(count or 1) * int(bits)


def result(kind, v):
    bits = kind_bits(kind)
    x = v["D0"].raw(64) & (1 << bits) - 1
    letters = kind.lstrip("0123456789").rstrip("0123456789")
    if letters in ("f", "bf") and kind[0] not in "23456789":
        if Float(x, "bf" if letters == "bf" else bits).is_nan():
            return "nan"
    if kind == "2f16":
        for shift in (0, 16):
            if Float(x >> shift & 0xffff, 16).is_nan():
                x = x & ~(0xffff << shift) | 0x7e00 << shift
    return f"{x:x}"


def corrected(name, v):
    """Changes results where the card does other than the pseudo-code, as compilers rely on."""
    kind = int(name[-2:]) if name[-2:].isdigit() else 32
    x, d = Float(v["S0"].raw(kind), kind) if kind in (16, 32, 64) else None, v["D0"].raw(64)
    if "_rndne_" in name and d & (1 << kind - 1) - 1 == 0:
        v["D0"] = Int(x.sign() << kind - 1, 64, False)  # -0.25 becomes -0
    if "_frexp_exp_" in name and x.number() == 0:
        v["D0"] = Int(0)
    if "_fract_" in name and d == FLOATS[kind][2]:
        v["D0"] = Int(FLOATS[kind][2] - 1)  # always below one
    if ("_sin_" in name or "_cos_" in name) and not (x.is_nan() or x.is_inf()):
        turn = 2 * math.pi * math.fmod(x.number(), 1)  # the argument is reduced before it is multiplied
        v["D0"] = Int(from_number(math.sin(turn) if "_sin_" in name else math.cos(turn), kind).bits, 64, False)


def divisions():
    """Returns for the steps of a division the text that makes quotients right, and what it replaces: AMD's scales a
    denominator up that is huge, scales the quotient by another power than the operands, and looks for an overflow in the
    denominator instead of the quotient."""
    out = {}
    for kind, one, by, scale in (("f32", 127, 64, "2.0F ** 32"), ("f64", 1023, 128, "2.0 ** 64")):
        out[f"v_div_fixup_{kind}"] = (f"elsif exponent(S1.{kind}) ==", f"elsif exponent(S0.{kind}) ==")
        fma = f"fma(S0.{kind}, S1.{kind}, S2.{kind})"
        out[f"v_div_fmas_{kind}"] = (f"D0.{kind} = {scale} * {fma}\n", f"""D0.{kind} = {fma};
if exponent(S2.{kind}) >= {one} then
D0.{kind} = ldexp(D0.{kind}, {by})
else
D0.{kind} = ldexp(D0.{kind}, -{by})
endif
""")
        branch = f"DENORM.{kind})) then\nVCC = 0x1LL;\nif S0.{kind} == S1.{kind} then\n// Only scale the denominator\nD0.{kind} = ldexp(S0.{kind}, "
        out[f"v_div_scale_{kind}"] = (f"{branch}{by})", f"{branch}-{by})")
    return out


def library():
    out = {}
    for op, text in PCODE.items():
        name = op.name.lower().removesuffix("_e32").removesuffix("_e64")
        out.setdefault(name, text)
    for name, (old, new) in divisions().items():
        if out[name].count(old) != 1:
            raise ValueError(f"{name} has another text than expected")
        out[name] = out[name].replace(old, new)
    return out


SKIP = re.compile(r"lane|perm|swap|mov?rel|wmma|fma_mix|mqsad|msad|qsad|cube|trig|mullit|cvt_off|pipeflush|getpc|setpc|swappc"
                  r"|rfe|call|sendmsg|getreg|setreg|version|waitcnt|dual|movrel|nop|wrexec_x|sat_pk|dot2_bf16|sad_hi|cvt_hi")


def main(table):
    lib = library()
    for fmt, code, name, dst, src in parse_table(table):
        if fmt not in ("SOP1", "SOP2", "SOPC", "VOP1", "VOP2", "VOPC", "VOP3", "VOP3SD", "VOP3P") or SKIP.search(name):
            continue
        src = [k for k in src if k != "mask"]
        if name.startswith(("v_fmaa", "v_fmam", "s_fmaa", "s_fmam")) or name not in lib:
            continue
        rng = random.Random(name)
        lines, cmp = [], name.startswith(("v_cmp", "s_cmp", "s_bitcmp"))
        for lane in range(VECTORS):
            values = [operand(k, rng) for k in src]
            if name == "v_mad_u64_u32" and lane % 3 == 0:
                values[2] |= 0xffff << 48  # so that the sum has a carry
                values[:2] = [x | 0xf << 28 for x in values[:2]]
            old = operand(dst, rng) if dst != "-" else 0
            flag = rng.getrandbits(1)
            v = variables(src, values, old, flag, lane)
            if name.startswith("v_div_scale"):
                v["D0"] = v["S0"]
            v["environment"]["frexp"] = "_frexp_" in name
            if name == "v_fmac_dx9_zero_f32":
                v["S2"] = v["D0"]
            if name.startswith(("v_dot4_i32", "v_dot8_i32")):
                v["NEG"] = Int(3)
            v = Machine(lib[name], v, lib).run()
            if fmt.startswith("SOP"):
                bit = v["SCC"].value & 1
            elif cmp:
                bit = (v["EXEC"] if name.startswith("v_cmpx") else v["D0"]).raw(64) >> lane & 1
            elif name.startswith(("v_mad_u64", "v_mad_i64")):
                bit = v["D1"].raw(1)
            elif name.startswith("v_div_scale"):
                bit = v["VCC"].raw(64) & 1 if v["VCC"].raw(64) in (0, 1) else 0
            else:
                bit = v["VCC"].raw(64) >> lane & 1
            corrected(name, v)
            d = "0" if cmp or dst == "-" else result(dst, v)
            lines.append(" ".join(f"{x:x}" for x in values) + f" {old:x} {flag} {d} {bit}")
        print("=", name, "~" if APPROXIMATE.match(name) else "")
        print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "../table.txt")
