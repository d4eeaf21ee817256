"""Evaluates the pseudo-code of AMD's reference of the instruction set.

Integers have no bounds while an expression is evaluated; a type or an assignment truncates them. Floating-point
results are exact fractions, rounded once to the type of the expression.
"""
import math
import re
import struct
from fractions import Fraction

TOKEN = re.compile(r"""\s*(?:(?P<sized>\d+'[A-Z]+(?![0-9A-Za-z.]))|(?P<number>\d+'(?:0x[0-9a-fA-F]+|\d+\.\d+|\d+)U?
    |0x[0-9a-fA-F]+(?:ULL|LL|U)?|\d+\.\d+F?|\d+(?:ULL|LL|U)?)|(?P<name>[A-Za-z_][A-Za-z_0-9]*)
    |(?P<op>\*\*|\+:|\+=|-=|<<|>>|<=|>=|==|!=|<>|&&|\|\||[-+*/&|^~!<>=?:;.,(){}\[\]]))""", re.X)


class Int:
    def __init__(self, value, width=32, signed=True):
        self.value, self.width, self.signed = value, width, signed

    def raw(self, width):
        return self.value & (1 << width) - 1


class Float:
    """A number by its bits. kind is 16, 32, 64 or "bf"."""
    SHAPE = {16: (5, 10), 32: (8, 23), 64: (11, 52), "bf": (8, 7)}

    def __init__(self, bits, kind):
        self.bits, self.kind = bits, kind

    def shape(self):
        return self.SHAPE[self.kind]

    def size(self):
        return 16 if self.kind == "bf" else self.kind

    def raw(self, width):
        return self.bits & (1 << width) - 1

    def sign(self):
        return self.bits >> (self.size() - 1) & 1

    def exponent(self):
        e, m = self.shape()
        return self.bits >> m & (1 << e) - 1

    def fraction_bits(self):
        return self.bits & (1 << self.shape()[1]) - 1

    def is_nan(self):
        return self.exponent() == (1 << self.shape()[0]) - 1 and self.fraction_bits() != 0

    def is_inf(self):
        return self.exponent() == (1 << self.shape()[0]) - 1 and self.fraction_bits() == 0

    def is_quiet(self):
        return self.is_nan() and self.fraction_bits() >> (self.shape()[1] - 1) == 1

    def is_denormal(self):
        return self.exponent() == 0 and self.fraction_bits() != 0

    def exact(self):
        e, m = self.shape()
        bias = (1 << (e - 1)) - 1
        if self.exponent() == 0:
            x = Fraction(self.fraction_bits()) * Fraction(2) ** (1 - bias - m)
        else:
            x = Fraction(self.fraction_bits() | 1 << m) * Fraction(2) ** (self.exponent() - bias - m)
        return -x if self.sign() else x

    def number(self):
        """Returns a Python float, which has every number of the type."""
        if self.is_nan():
            return math.nan
        if self.is_inf():
            return -math.inf if self.sign() else math.inf
        x = float(self.exact())
        return -0.0 if x == 0 and self.sign() else x


def nan(kind, sign=0):
    e, m = Float.SHAPE[kind]
    return Float(sign << (e + m) | ((1 << e) - 1) << m | 1 << (m - 1), kind)


def infinity(kind, sign=0):
    e, m = Float.SHAPE[kind]
    return Float(sign << (e + m) | ((1 << e) - 1) << m, kind)


def rounded(x, kind, sign_of_zero=0, toward_zero=False):
    """Rounds a fraction to nearest even, or toward zero."""
    e, m = Float.SHAPE[kind]
    bias = (1 << (e - 1)) - 1
    if x == 0:
        return Float(sign_of_zero << (e + m), kind)
    sign, x = (1, -x) if x < 0 else (0, x)
    power = x.numerator.bit_length() - x.denominator.bit_length()
    if Fraction(2) ** power > x:
        power -= 1
    power = max(power, 1 - bias)
    scaled = x / Fraction(2) ** (power - m)
    n = scaled.numerator // scaled.denominator
    rest = scaled - n
    if not toward_zero and (rest > Fraction(1, 2) or rest == Fraction(1, 2) and n & 1):
        n += 1
    bits = n + ((power + bias - 1) << m)
    if bits >= ((1 << e) - 1) << m:
        if toward_zero:
            return Float(sign << (e + m) | (((1 << e) - 1) << m) - 1, kind)
        return infinity(kind, sign)
    return Float(sign << (e + m) | bits, kind)


def from_number(x, kind):
    if math.isnan(x):
        return nan(kind)
    if math.isinf(x):
        return infinity(kind, int(x < 0))
    return rounded(Fraction(x), kind, int(math.copysign(1, x) < 0))


def convert(x, kind, toward_zero=False):
    """Changes the type of a floating-point number. The payload of a NaN stays."""
    if x.kind == kind:
        return x
    if x.is_nan():
        e, m = Float.SHAPE[kind]
        own = x.shape()[1]
        payload = x.fraction_bits() << max(0, m - own) >> max(0, own - m)
        return Float(x.sign() << (e + m) | ((1 << e) - 1) << m | payload or 1, kind)
    if x.is_inf():
        return infinity(kind, x.sign())
    return rounded(x.exact(), kind, x.sign(), toward_zero)


def typed(x, letters, width):
    """Reinterprets the low bits of a value."""
    raw = x.raw(width)
    if letters == "f":
        return Float(raw, width)
    if letters == "bf":
        return Float(raw, "bf")
    if letters == "i" and raw >> (width - 1):
        return Int(raw - (1 << width), width, True)
    return Int(raw, width, letters == "i")


def add(a, b):
    kind = wider(a, b)
    a, b = convert(a, kind), convert(b, kind)
    if a.is_nan() or b.is_nan() or a.is_inf() and b.is_inf() and a.sign() != b.sign():
        return nan(kind)
    if a.is_inf() or b.is_inf():
        return a if a.is_inf() else b
    return rounded(a.exact() + b.exact(), kind, a.sign() & b.sign())


def mul(a, b):
    kind = wider(a, b)
    a, b = convert(a, kind), convert(b, kind)
    sign = a.sign() ^ b.sign()
    if a.is_nan() or b.is_nan() or a.is_inf() and b.number() == 0 or b.is_inf() and a.number() == 0:
        return nan(kind)
    if a.is_inf() or b.is_inf():
        return infinity(kind, sign)
    return rounded(a.exact() * b.exact(), kind, sign)


def div(a, b):
    kind = wider(a, b)
    a, b = convert(a, kind), convert(b, kind)
    sign = a.sign() ^ b.sign()
    if a.is_nan() or b.is_nan() or a.is_inf() and b.is_inf() or a.number() == 0 and b.number() == 0:
        return nan(kind)
    if a.is_inf() or b.number() == 0:
        return infinity(kind, sign)
    if b.is_inf():
        return rounded(Fraction(0), kind, sign)
    return rounded(a.exact() / b.exact(), kind, sign)


def fma(a, b, c):
    kind = wider(wider_value(a, b), c)
    a, b, c = convert(a, kind), convert(b, kind), convert(c, kind)
    sign = a.sign() ^ b.sign()
    if a.is_nan() or b.is_nan() or c.is_nan() or a.is_inf() and b.number() == 0 or b.is_inf() and a.number() == 0:
        return nan(kind)
    if a.is_inf() or b.is_inf():
        return nan(kind) if c.is_inf() and c.sign() != sign else infinity(kind, sign)
    if c.is_inf():
        return c
    product = a.exact() * b.exact()
    zero = sign & c.sign() if product == 0 and c.number() == 0 else 0
    return rounded(product + c.exact(), kind, zero)


def order(kind):
    return {"bf": 1, 16: 1, 32: 2, 64: 3}[kind]


def wider(a, b):
    return a.kind if order(a.kind) >= order(b.kind) else b.kind


def wider_value(a, b):
    return a if order(a.kind) >= order(b.kind) else b


def negated(x):
    if isinstance(x, Float):
        return Float(x.bits ^ 1 << (x.size() - 1), x.kind)
    return Int(-x.value, x.width, x.signed)


def saturated(x, lo, hi, width, signed):
    if x.is_nan():
        return Int(0, width, signed)
    n = (lo if x.sign() else hi) if x.is_inf() else math.trunc(x.exact())
    return Int(max(lo, min(hi, n)), width, signed)


def norm(x, lo, scale, width):
    if x.is_nan():
        return Int(0, width)
    v = Fraction(lo if x.sign() else 1) if x.is_inf() else max(Fraction(lo), min(Fraction(1), x.exact()))
    return Int(round(v * scale), width)


def by_number(f):
    return lambda x: from_number(f(x.number()), x.kind) if not x.is_nan() else nan(x.kind)


def integral(f):
    def apply(x):
        if x.is_nan() or x.is_inf():
            return Float(x.bits | (1 << (x.shape()[1] - 1) if x.is_nan() else 0), x.kind)
        return rounded(Fraction(f(x.exact())), x.kind, x.sign())
    return apply


def safe(f, special):
    def apply(x):
        try:
            return f(x)
        except (ValueError, OverflowError, ZeroDivisionError):
            return special(x)
    return apply


def signext_from_bit(x, n):
    n = n.value
    if n == 0:
        return Int(0, x.width)
    raw = x.raw(n)
    return Int(raw - (1 << n) if raw >> (n - 1) else raw, x.width)


def mantissa(x):
    if x.number() == 0:
        return x
    return from_number(math.frexp(x.number())[0], x.kind)


def exponent(x):
    return Int(x.exponent())


def exponent_of_value(x):
    """The field of the exponent, as if a denormal were normal."""
    if x.is_denormal():
        return Int(math.frexp(x.number())[1] - 1 + {16: 15, 32: 127, 64: 1023}[x.kind])
    return exponent(x)


def log2(x):
    if x == 0:
        return -math.inf
    return math.nan if x < 0 else math.log2(x)


FUNCTIONS = {
    "fma": fma, "abs": lambda x: Float(x.bits & ~(1 << (x.size() - 1)), x.kind), "sign": lambda x: Int(x.sign(), 1),
    "trunc": integral(math.trunc), "floor": integral(math.floor), "exponent": exponent, "mantissa": mantissa,
    "fract": lambda x: add(x, negated(integral(math.floor)(x))),
    "isEven": lambda x: Int(int(x.exact() % 2 == 0) if not (x.is_nan() or x.is_inf()) else 0),
    "isNAN": lambda x: Int(int(x.is_nan())), "isQuietNAN": lambda x: Int(int(x.is_quiet())),
    "isSignalNAN": lambda x: Int(int(x.is_nan() and not x.is_quiet())),
    "cvtToQuietNAN": lambda x: Float(x.bits | 1 << (x.shape()[1] - 1), x.kind),
    "sqrt": by_number(safe(math.sqrt, lambda x: math.nan)), "log2": by_number(log2),
    "sin": by_number(lambda x: math.nan if math.isinf(x) else math.sin(x)),
    "cos": by_number(lambda x: math.nan if math.isinf(x) else math.cos(x)),
    "pow": lambda a, b: from_number(safe(lambda y: a.number() ** y, lambda y: math.inf)(b.number()), b.kind),
    "ldexp": lambda x, n: x if x.is_nan() or x.is_inf() else rounded(x.exact() * Fraction(2) ** n.value, x.kind, x.sign()),
    "signext": lambda x: Int(typed(x, "i", x.width).value, 64), "signext_from_bit": signext_from_bit,
    "f32_to_i32": lambda x: saturated(x, -2**31, 2**31 - 1, 32, True), "f64_to_i32": lambda x: saturated(x, -2**31, 2**31 - 1, 32, True),
    "f32_to_u32": lambda x: saturated(x, 0, 2**32 - 1, 32, False), "f64_to_u32": lambda x: saturated(x, 0, 2**32 - 1, 32, False),
    "f16_to_i16": lambda x: saturated(x, -2**15, 2**15 - 1, 16, True), "f16_to_u16": lambda x: saturated(x, 0, 2**16 - 1, 16, False),
    "v_cvt_i16_f32": lambda x: saturated(x, -2**15, 2**15 - 1, 16, True), "v_cvt_u16_f32": lambda x: saturated(x, 0, 2**16 - 1, 16, False),
    "f32_to_u8": lambda x: saturated(x, 0, 255, 8, False),
    "f32_to_snorm": lambda x: norm(x, -1, 32767, 16), "f16_to_snorm": lambda x: norm(x, -1, 32767, 16),
    "f32_to_unorm": lambda x: norm(x, 0, 65535, 16), "f16_to_unorm": lambda x: norm(x, 0, 65535, 16),
    "i32_to_i16": lambda x: Int(max(-2**15, min(2**15 - 1, x.value)), 16), "u32_to_u16": lambda x: Int(min(2**16 - 1, x.value), 16, False),
    "u8_to_u32": lambda x: x, "u4_to_u32": lambda x: x,
}
for source in ("i32", "u32", "i16", "u16"):
    for target in (16, 32, 64):
        FUNCTIONS[f"{source}_to_f{target}"] = lambda x, t=target: rounded(Fraction(x.value), t)
for source in ("f16", "f32", "f64", "bf16"):
    for target in (16, 32, 64):
        FUNCTIONS[f"{source}_to_f{target}"] = lambda x, t=target: convert(x, t)


class Break(Exception):
    pass


class Return(Exception):
    pass


class Machine:
    """Runs one piece of pseudo-code."""

    def __init__(self, text, variables, library=None):
        text = re.sub(r"//[^\n]*", "", text)
        self.tokens = []
        at = 0
        text = text.rstrip()
        while at < len(text):
            m = TOKEN.match(text, at)
            if not m:
                raise SyntaxError(text[at:at + 40])
            self.tokens.append((m.lastgroup, m.group(m.lastgroup)))
            at = m.end()
        self.at, self.vars, self.library = 0, variables, library or {}
        self.lambdas, self.toward_zero, self.dead = {}, False, False

    def peek(self, n=0):
        return self.tokens[self.at + n][1] if self.at + n < len(self.tokens) else ""

    def take(self, want=None):
        kind, text = self.tokens[self.at]
        if want is not None and text != want:
            raise SyntaxError(f"{text!r} instead of {want!r} at {self.tokens[max(0, self.at - 8):self.at + 4]}")
        self.at += 1
        return text

    def run(self):
        self.block(())
        return self.vars

    def block(self, ends, execute=True):
        while self.at < len(self.tokens) and self.peek() not in ends:
            if self.peek() == ";":
                self.take()
                continue
            self.statement(execute)

    def statement(self, execute):
        word = self.peek()
        if word == "if":
            return self.conditional(execute)
        if word == "for":
            return self.loop(execute)
        if word == "break":
            self.take()
            if execute:
                raise Break
            return None
        if word == "return":
            self.take()
            value = self.skip_expression(execute)
            if execute:
                self.result = value
                raise Return
            return None
        if word == "declare":
            return self.declaration()
        if self.peek(1) == "=" and self.peek(2) == "lambda":
            return self.define()
        return self.assignment(execute)

    def skip_expression(self, execute):
        """Reads an expression, and evaluates it unless it is in a branch that is not taken."""
        was, self.dead = self.dead, self.dead or not execute
        value = self.expression()
        self.dead = was
        return value

    def conditional(self, execute):
        done = False
        self.take("if")
        while True:
            live = execute and not done
            condition = self.skip_expression(live)
            hold = live and truth(condition)
            self.take("then")
            self.block(("elsif", "else", "endif"), hold)
            done = done or hold
            word = self.take()
            if word == "elsif":
                continue
            if word == "else":
                self.block(("endif",), execute and not done)
                self.take("endif")
            return

    def loop(self, execute):
        self.take("for")
        name = self.take()
        self.take("in")
        first = self.skip_expression(execute)
        self.take(":")
        last = self.skip_expression(execute)
        self.take("do")
        body = self.at
        if not execute:
            self.block(("endfor",), False)
        for i in range(first.value, last.value + 1) if execute else ():
            self.at = body
            self.vars[name] = Int(i)
            try:
                self.block(("endfor",), True)
            except Break:
                depth = 1
                while depth:
                    word = self.take()
                    depth += (word == "for") - (word == "endfor")
                self.at -= 1
                break
        self.take("endfor")

    def declaration(self):
        self.take("declare")
        name = self.take()
        self.take(":")
        self.take()
        if self.peek() == "[":
            self.take()
            n = self.expression().value
            self.take("]")
            if name not in self.vars:
                self.vars[name] = [Int(0)] * n
        elif name not in self.vars:
            self.vars[name] = Int(0)

    def define(self):
        name = self.take()
        self.take("=")
        self.take("lambda")
        self.take("(")
        names = []
        while self.peek() != ")":
            names.append(self.take())
            if self.peek() == ",":
                self.take()
        self.take(")")
        start, depth = self.at, 0
        while True:
            word = self.take()
            depth += (word == "(") - (word == ")")
            if depth == 0:
                break
        self.lambdas[name] = (names, start + 1, self.at - 1)

    def call(self, name, args):
        if self.dead:
            return Int(0)
        if name in self.lambdas:
            names, start, end = self.lambdas[name]
            inner = Machine("", dict(zip(names, args)), self.library)
            inner.tokens, inner.lambdas = self.tokens[start:end], self.lambdas
            if inner.tokens[-1][1] == ";":
                inner.tokens = inner.tokens[:-1]
            if inner.peek() in ("if", "declare", "return", "for"):
                try:
                    inner.run()
                except Return:
                    return inner.result
            return inner.expression()
        if name == "exponent" and self.vars["environment"].get("frexp"):
            return exponent_of_value(args[0])
        if name in FUNCTIONS:
            if name == "f32_to_f16" and self.toward_zero:
                return convert(args[0], 16, True)
            return FUNCTIONS[name](*args)
        if name in self.library:
            sources = {f"S{n}": Int(a.raw(64), 64) for n, a in enumerate(args)}
            own = {"D0": Int(0), **sources, "environment": self.vars["environment"]}
            out = Machine(self.library[name], own, self.library).run()
            letters, width = re.fullmatch(r".*_([fiu])(\d+)", name).groups()
            return typed(out["D0"], letters, 32 if name.startswith("v_sad") or name.startswith("v_msad") else int(width))
        raise KeyError(name)

    # Assignments.

    def assignment(self, execute):
        targets = []
        if self.peek() == "{":
            self.take()
            while self.peek() != "}":
                targets.append(self.target(execute))
                if self.peek() == ",":
                    self.take()
            self.take("}")
        else:
            targets.append(self.target(execute))
        op = self.take()
        value = self.skip_expression(execute)
        if not execute:
            return
        if op != "=":
            value = self.arithmetic(op[0], self.load(targets[0]), value)
        if len(targets) > 1:
            for t in reversed(targets):
                width = int(re.search(r"\d+$", t[1][-1][1]).group())
                self.store(t, Int(value.raw(200) & (1 << width) - 1, width, False))
                value = Int(value.raw(200) >> width, 200)
            return
        if targets[0][0] == "ROUND_MODE":
            self.toward_zero = value is TOWARD_ZERO
            return
        self.store(targets[0], value)

    def target(self, execute):
        was, self.dead = self.dead, self.dead or not execute
        name = self.take()
        path = []
        while self.peek() in (".", "["):
            path.append(self.suffix())
        self.dead = was
        return name, path

    def suffix(self):
        if self.take() == ".":
            return "type", self.take()
        first = self.expression()
        if self.peek() == ":":
            self.take()
            last = self.expression()
            self.take("]")
            return "slice", first.value, last.value
        if self.peek() == "+:":
            self.take()
            n = self.expression()
            self.take("]")
            return "slice", first.value + n.value - 1, first.value
        self.take("]")
        return "index", first.value

    def load(self, target):
        value = self.variable(target[0])
        for s in target[1]:
            value = self.apply(value, s)
        return value

    def apply(self, value, s):
        if self.dead:
            return Int(0)
        if s[0] == "type":
            m = re.fullmatch(r"(bf|[fiub])(\d+)", s[1])
            return typed(value, m.group(1), int(m.group(2)))
        if s[0] == "index":
            if isinstance(value, list):
                return value[s[1]]
            return Int(value.raw(200) >> s[1] & 1, 1, False)
        hi, lo = s[1], s[2]
        if hi >= lo:
            return Int(value.raw(200) >> lo & (1 << (hi - lo + 1)) - 1, hi - lo + 1, False)
        n = lo - hi + 1
        return Int(int(format(value.raw(200) >> hi & (1 << n) - 1, f"0{n}b")[::-1], 2), n, False)

    def store(self, target, value):
        name, path = target
        if not path:
            self.vars[name] = value
            return
        types = [s[1] for s in path if s[0] == "type"]
        places = [s for s in path if s[0] != "type"]
        kind = re.fullmatch(r"(bf|[fiub])(\d+)", types[-1] if types else "b64")
        if kind.group(1) in ("f", "bf") and isinstance(value, Float):
            value = convert(value, "bf" if kind.group(1) == "bf" else int(kind.group(2)))
        old = self.vars.get(name, Int(0))
        if isinstance(old, list):
            old[places[0][1]] = value
            return
        if not places:
            width = int(kind.group(2))
            raw = value.raw(width)
            self.vars[name] = Int(old.raw(200) >> width << width | raw, 64, False) if name.startswith("D") else typed(Int(raw, width), kind.group(1), width)
            return
        if places[0][0] == "index":
            hi = lo = places[0][1]
        else:
            hi, lo = places[0][1:]
        mask = (1 << (hi - lo + 1)) - 1
        self.vars[name] = Int(old.raw(200) & ~(mask << lo) | value.raw(hi - lo + 1) << lo, 64, False)

    # Expressions, by precedence.

    def expression(self):
        value = self.binary(0)
        if self.peek() != "?":
            return value
        self.take()
        yes = self.expression()
        self.take(":")
        no = self.expression()
        return yes if truth(value) else no

    LEVELS = [("||",), ("&&",), ("|",), ("^",), ("&",), ("==", "!=", "<>"), ("<", ">", "<=", ">="), ("<<", ">>"),
              ("+", "-"), ("*", "/"), ("**",)]

    def binary(self, level):
        if level == len(self.LEVELS):
            return self.unary()
        value = self.binary(level + 1)
        while self.peek() in self.LEVELS[level]:
            op = self.take()
            if self.peek() == "DENORM":
                self.take(), self.take("."), self.take()
                value = Int(0 if self.dead else int(value.is_denormal()))
                continue
            value = self.arithmetic(op, value, self.binary(level + 1))
        return value

    def arithmetic(self, op, a, b):
        if self.dead:
            return Int(0)
        if op in ("||", "&&"):
            return Int(int(truth(a) or truth(b) if op == "||" else truth(a) and truth(b)), 1)
        if isinstance(a, Float) or isinstance(b, Float):
            return self.floating(op, a, b)
        width, signed = max(a.width, b.width), a.signed and b.signed
        x, y = a.value, b.value
        compare = {"==": x == y, "!=": x != y, "<>": x != y, "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y}
        if op in compare:
            return Int(int(compare[op]), 1)
        value = {"+": lambda: x + y, "-": lambda: x - y, "*": lambda: x * y, "/": lambda: x // y, "&": lambda: x & y,
                 "|": lambda: x | y, "^": lambda: x ^ y, "<<": lambda: x << y, ">>": lambda: x >> y}[op]()
        return Int(value, a.width if op in ("<<", ">>") else width, signed)

    def floating(self, op, a, b):
        if op == "**":
            return Power(b.value)
        if isinstance(a, Power):
            a, b = b, a
        if isinstance(b, Power):
            if a.is_nan() or a.is_inf():
                return a
            return rounded(a.exact() * Fraction(2) ** max(-5000, min(5000, b.power)), a.kind, a.sign())
        if op in ("+", "-", "*", "/"):
            return {"+": add, "-": lambda a, b: add(a, negated(b)), "*": mul, "/": div}[op](a, b)
        if a.is_nan() or b.is_nan():
            return Int(int(op == "!="), 1)
        x, y = a.number(), b.number()
        return Int(int({"==": x == y, "!=": x != y, "<>": x != y, "<": x < y, ">": x > y, "<=": x <= y, ">=": x >= y}[op]), 1)

    def unary(self):
        word = self.peek()
        if word == "-":
            self.take()
            return negated(self.unary())
        if word == "+":
            self.take()
            return self.unary()
        if word == "!":
            self.take()
            return Int(int(not truth(self.unary())), 1)
        if word == "~":
            self.take()
            x = self.unary()
            return Int(~x.value & (1 << x.width) - 1 if not x.signed else ~x.value, x.width, x.signed)
        value = self.primary()
        while self.peek() in (".", "["):
            value = self.apply(value, self.suffix())
        return value

    def primary(self):
        kind, text = self.tokens[self.at]
        self.at += 1
        if text == "(":
            value = self.expression()
            self.take(")")
            return value
        if text == "{":
            out, width = 0, 0
            while self.peek() != "}":
                x = self.expression()
                n = x.size() if isinstance(x, Float) else x.width
                out, width = out << n | x.raw(n), width + n
                if self.peek() == ",":
                    self.take()
            self.take("}")
            return Int(out, width, False)
        if kind == "sized":
            return self.cast(text)
        if kind == "number":
            return literal(text)
        if self.peek() == "(":
            self.take()
            args = []
            while self.peek() != ")":
                args.append(self.expression())
                if self.peek() == ",":
                    self.take()
            self.take(")")
            return self.call(text, args)
        return self.variable(text)

    def cast(self, text):
        width, letters = text.split("'")
        width = int(width)
        self.take("(")
        x = self.expression()
        self.take(")")
        if self.dead:
            return Int(0)
        if isinstance(x, Power):
            return x
        if letters == "F":
            return Float(x.raw(width), width) if isinstance(x, Int) else convert(x, width)
        if isinstance(x, Float):
            return Int(x.raw(width), width, False)
        if letters == "I":
            return typed(Int(x.value, width), "i", width)
        return Int(x.value & (1 << width) - 1, width, False)

    def variable(self, name):
        constants = {"INF": infinity(64), "NAN": nan(64), "OVERFLOW_F32": infinity(32), "UNDERFLOW_F32": Float(0, 32),
                     "OVERFLOW_F64": infinity(64), "UNDERFLOW_F64": Float(0, 64), "PI": from_number(math.pi, 64),
                     "MAX_FLOAT_F32": Float(0x7f7fffff, 32), "ROUND_TOWARD_ZERO": TOWARD_ZERO, "ROUND_MODE": Int(0)}
        if name in self.vars:
            return self.vars[name]
        if name in constants:
            x = constants[name]
            if name in ("INF", "NAN") and self.peek() == ".":
                self.take()
                return convert(x, int(self.take()[1:]))
            return x
        if name == "WAVE_MODE":
            self.take(".")
            return self.vars["environment"]["WAVE_MODE"][self.take()]
        if self.dead:
            return Int(0)
        raise KeyError(name)


TOWARD_ZERO = Int(3)


class Power(Float):
    """A power of two, which may be outside every type."""

    def __init__(self, power):
        super().__init__(0, 64)
        self.power = power


def truth(x):
    return (x.value if isinstance(x, Int) else x.number()) != 0


def literal(text):
    if "'" in text:
        width, value = text.split("'")
        if "." in value:
            return from_number(float(value), int(width))
        signed = not value.endswith("U")
        return Int(int(value.rstrip("U"), 0), int(width), signed)
    if "." in text:
        return from_number(float(text.rstrip("F")), 32 if text.endswith("F") else 64)
    digits = text.rstrip("UL")
    suffix = text[len(digits):]
    return Int(int(digits, 0), 64 if "LL" in suffix else 32, "U" not in suffix)
