"""Topics of the differential test: classes and what their objects do."""

# ruff: noqa: E501 (lines of the programs that are drawn)
from __future__ import annotations

from .programs import Pen, topic


@topic("classes", "properties", "exceptions", "class attributes", "staticmethods")
def account(pen: Pen) -> tuple[str, list[str]]:
    name, error = pen.name("Account", "Wallet"), pen.name("Refused", "TooMuch")
    a, b = pen.name("a", "acc", "x"), pen.name("b", "other", "y")
    low, start = pen.integer(0, 9), pen.integer(10, 50)
    base = pen.pick("Exception", "ValueError", "RuntimeError", "ArithmeticError", "KeyError")
    slots = pen.maybe("    __slots__ = ('owner', '_balance', 'log')\n", 0.3)
    code = f"""
class {error}({base}):
    def __init__(self, wanted, left):
        super().__init__({pen.pick("f'{wanted} of {left}'", "wanted, left", "'no'")})
        self.wanted = wanted
        self.left = left

class {name}:
    count = 0
    fees = {{'low': {low}, 'high': {pen.number()}}}
{slots}
    def __init__(self, owner, balance={start}):
        self.owner = owner
        self._balance = balance
        self.log = []
        {name}.count += 1

    @property
    def balance(self):
        return self._balance

    @balance.setter
    def balance(self, value):
        if value < 0:
            raise {error}(value, self._balance)
        self._balance = value

    def withdraw(self, amount):
        {pen.pick("if amount > self._balance:", "if not 0 < amount <= self._balance:")}
            raise {error}(amount, self._balance)
        self._balance -= amount
        self.log.append(('withdraw', amount))
        return {pen.pick("self", "self._balance", "None")}

    def move(self, other, amount):
        self.withdraw(amount)
        other.balance += amount
        return self, other

    @staticmethod
    def fee(kind):
        return {name}.fees[kind]

    @classmethod
    def empty(cls, owner):
        return cls(owner, 0)
"""
    code += pen.maybe(f"    def __repr__(self):\n        return f'{name}({{self.owner!r}})'\n", 0.6)
    code += pen.maybe("    def __bool__(self):\n        return self._balance > 0\n", 0.3)
    code += pen.maybe("    def __len__(self):\n        return len(self.log)\n", 0.3)
    code += pen.maybe("    def __eq__(self, o):\n        return self.owner == o.owner\n", 0.3)
    w, v = pen.word(), pen.word()
    steps = [
        *(f"!{a} = {name}({w!r})", f"!{b} = {name}({v!r}, balance={pen.integer(0, 30)})"),
        *(f"{a}.balance", f"{name}.count", f"{a}.withdraw({pen.integer(1, 30)})", f"{a}.log"),
        *(f"{a} == {b}", f"bool({a})", f"{a}.move({b}, {pen.integer(1, 12)})[1] is {b}"),
        *(f"{b}.balance", f"{a}.log == {b}.log", f"!{a}.balance = {pen.integer(0, 99)}"),
        *(f"{a}._balance + {b}.balance", f"setattr({b}, 'balance', {pen.integer(-5, 5)})"),
        *(f"{name}.fee({pen.pick('low', 'high', 'mid')!r})", f"!{name}.fees['low'] = {low + 1}"),
        *(f"{name}.fee('low')", f"{name}.empty({w!r}).balance", f"{a}", f"str({a})"),
        *(f"[x.owner for x in ({a}, {b})]", f"hasattr({a}, 'missing')", f"{a}.missing"),
        *(f"getattr({a}, 'missing', 3)", f"vars({a})['owner']", f"{a}.owner * 2"),
        *(f"isinstance({a}, {name})", f"type({a}) is type({b})", f"issubclass({error}, {base})"),
        *(f"{name}.empty({v!r})", f"sorted([{a}, {b}], key=lambda x: x.owner)[0].owner"),
        *(f"{a} in [{b}, {a}]", f"!{a}.note = {pen.value()!r}", f"{a}.note", f"!del {a}.note"),
        *(f"{a}.note", f"{name}.__name__", f"{a}.__class__.__name__", f"type({a}) is {name}"),
        f"len({a}.log) if {a}.log else 'nothing'",
    ]
    return code, pen.some(steps, 0.5)


@topic("classes", "containers", "iteration", "exceptions")
def collection(pen: Pen) -> tuple[str, list[str]]:
    name, s = pen.name("Stack", "Bag", "Pile", "Shelf"), pen.name("s", "items", "bag")
    code = f"""
class {name}:
    def __init__(self, items=()):
        self.items = list(items)

    def push(self, x):
        self.items.append(x)
        return {pen.pick("self", *["None"] * 4, "len(self.items)")}

    def pop(self):
        if not self.items:
            raise {pen.pick("IndexError('empty')", "LookupError", "KeyError('nothing', 3)")}
        return self.items.pop()
"""
    parts = {
        "__len__": "return len(self.items)",
        "__iter__": pen.pick("return iter(self.items)", "yield from reversed(self.items)"),
        "__contains__": "return {} in self.items".format(pen.pick(*["x"] * 9, "-x")),
        "__getitem__": f"return {pen.pick('self.items[x]', f'{name}(self.items[x])')}",
        "__delitem__": "del self.items[x]",
        "__setitem__": "self.items[x] = v",
        "__reversed__": "return iter(self.items[::-1])",
        "__eq__": pen.pick(
            "return isinstance(x, type(self)) and self.items == x.items",
            "return self.items == x.items if isinstance(x, type(self)) else NotImplemented",
        ),
        "__bool__": "return len(self.items) > 1",
        "__repr__": f"return f'{name}({{self.items}})'",
        "__add__": f"return {name}(self.items + x.items)",
        "__hash__": "return hash(tuple(self.items))",
        "__call__": "return [x, *self.items]",
    }
    methods = {method for method in parts if pen.chance.random() < 0.6}
    if "__contains__" in methods and pen.chance.random() < 0.8:
        methods.add("__iter__")
    for method, body in parts.items():
        if method in methods:
            extra = {"__setitem__": ", x, v"}.get(method, ", x")
            none = method in ("__len__", "__iter__", "__reversed__", "__bool__", "__repr__")
            extra = "" if none or method == "__hash__" else extra
            code += f"    def {method}(self{extra}):\n        {body}\n"
    n, k = pen.integers(), pen.integer(-2, 4)
    steps = [
        *(f"!{s} = {name}({n})", f"len({s})", f"list({s})", f"{k} in {s}", f"{s}[{k}]", f"{s}[1:]"),
        *(f"bool({s})", f"not {s}", f"{s}.push({pen.value()!r})", f"{s}.pop()", f"{s}.items"),
        *(f"!{s}.push({k})", f"{k} in {s}", f"sorted({s})", f"max({s})", f"sum({s})", f"{s}"),
        *(f"{s} == {name}({n})", f"{s} != {name}()", f"{s} == {s}", f"{name}() or 'empty'"),
        *(f"list(reversed({s}))", f"[x for x in {s}]", f"tuple({s})", f"set({s})", f"{s}({k})"),
        *(f"!{s}[0] = {k}", f"{s}.items[0]", f"!del {s}[0]", f"{s}.items", f"next(iter({s}))"),
        *(f"repr({s})", f"f'{{{s}}}'", f"({s} + {name}([{k}])).items", f"len({s} + {name}([1]))"),
        *(f"list(zip({s}, 'abc'))", f"dict(enumerate({s}))", f"any(x == {k} for x in {s})"),
        *(f"a, *b = {s}", f"[*{s}, 0]", f"{s}.pop()", f"{s}.pop()", f"!{s}.items.clear()"),
        *(
            f"{s}.pop()",
            f"{{{s}: 1}}",
            f"{s} in {{{name}({n}), {s}}}",
            f"!{s}.items.extend([3, 4])",
        ),
        *(f"{s}.items is {s}.items", f"iter({s})", f"{s}.index(3)", f"callable({s})"),
        *(f"isinstance({s}, collections.abc.Iterable)", f"min({s}, default=None)"),
    ]
    return code, pen.some([x for x in steps if not x.startswith("a, *b")], 0.5)


@topic("classes", "operators", "numbers", "string formatting")
def vector(pen: Pen) -> tuple[str, list[str]]:
    name = pen.name("Vec", "Point", "Pair", "Money2")
    v, w = pen.name("v", "p"), pen.name("w", "q")
    code = f"""
class {name}:
    def __init__(self, x, y=0):
        self.x, self.y = x, y

    def __repr__(self):
        return f'{name}({{self.x}}, {{self.y}})'
"""
    both = f"{name}(self.x {{0}} o.x, self.y {{0}} o.y)"
    one = f"{name}(self.x {{0}} o, self.y {{0}} o)"
    strict = pen.maybe("if not isinstance(o, {0}): return NotImplemented\n        ", 0.85)
    strict = strict.format(name)
    parts = {
        "__eq__": pen.pick(
            *[strict + "return (self.x, self.y) == (o.x, o.y)"] * 12, "return self.x == o"
        ),
        "__hash__": "return hash((self.x, self.y))",
        "__add__": strict + f"return {both.format('+')}",
        "__sub__": strict + f"return {both.format('-')}",
        "__mul__": pen.pick(
            f"return {one.format('*')}",
            f"return {both.format('*')} if isinstance(o, {name}) else {one.format('*')}",
            "return self.x * o.x + self.y * o.y",
        ),
        "__rmul__": "return self * o",
        "__radd__": f"return self if o == 0 else {name}(self.x + o, self.y + o)",
        "__iadd__": "self.x += o.x; self.y += o.y; return self",
        "__neg__": f"return {name}(-self.x, -self.y)",
        "__abs__": "return abs(self.x) + abs(self.y)",
        "__lt__": "return (self.x, self.y) < (o.x, o.y)",
        "__le__": "return self.x <= o.x",
        "__bool__": "return bool(self.x or self.y)",
        "__getitem__": "return (self.x, self.y)[o]",
        "__iter__": "return iter((self.x, self.y))",
        "__len__": "return 2",
        "__matmul__": "return self.x * o.x + self.y * o.y",
        "__truediv__": f"return {one.format('/')}",
        "__floordiv__": f"return {one.format('//')}",
        "__mod__": "return self.x % o",
        "__pow__": f"return {one.format('**')}",
        "__xor__": f"return {name}(self.x, o.y)",
        "__and__": strict + "return min(self.x, o.x)",
        "__call__": "return self.x * o + self.y",
        "__float__": "return float(self.x)",
        "__int__": "return int(self.y)",
        "__round__": f"return {name}(round(self.x, o), round(self.y, o))",
        "__format__": "return f'<{self.x:{o}}>'",
        "__str__": "return f'({self.x};{self.y})'",
        "__contains__": "return o in (self.x, self.y)",
        "__index__": "return int(self.x)",
        "__invert__": f"return {name}(self.y, self.x)",
        "__divmod__": "return divmod(self.x, o)",
    }
    unary = ("hash", "neg", "abs", "bool", "iter", "len", "float", "int", "str", "index", "invert")
    for method, body in parts.items():
        if pen.chance.random() < 0.65:
            extra = "" if method.strip("_") in unary else ", o=None" if "round" in method else ", o"
            code += f"    def {method}(self{extra}):\n        {body}\n"
    code += pen.maybe(f"    def scaled(self, k):\n        return {name}(self.x * k, self.y * k)\n")
    code += f"    def move(self, dx):\n        self.x += dx\n        return {pen.pick('self', 'None', 'self.x')}\n"
    k, x = pen.number(), pen.integer(1, 5)
    steps = [
        *(f"!{v} = {name}({pen.number()}, {pen.number()})", f"!{w} = {name}({x}, {x})"),
        *(
            f"{v} + {w}",
            f"{v} - {w}",
            f"{v} * {k}",
            f"{k} * {v}",
            f"{v} * {w}",
            f"-{v}",
            f"abs({v})",
        ),
        *(
            f"({v} + {w}).x",
            f"({w} * {k}).y",
            f"{v} == {w}",
            f"{v} != {name}({x})",
            f"{w} == {name}({x}, {x})",
        ),
        *(f"{v} < {w}", f"{v} <= {w}", f"{v} > {w}", f"sorted([{v}, {w}])[0].x", f"max({v}, {w})"),
        *(f"{v} is {v}", f"bool({name}(0))", f"{v}[0]", f"{v}['a']"),
        *(
            f"list({w})",
            f"len({v})",
            f"{v} @ {w}",
            f"{w} / 2",
            f"{w} // 2",
            f"{w} % 2",
            f"{w} ** 2",
        ),
        *(f"{v} ^ {w}", f"{v} & {w}", f"{v}(3)", f"float({v})", f"int({w})", f"{v}"),
        *(f"round({v})", f"round({v}, 1)", f"f'{{{w}:5}}'", f"format({w}, '03d')", f"str({v})"),
        *(f"f'{{{v}}}|{{{w}!r:>12}}'", f"'%s' % {v}", f"{x} in {w}", f"range({w})[-1]", f"~{w}"),
        *(f"divmod({w}, 2)", f"!{v} += {w}", f"{v}.x", f"hash({w}) == hash({name}({x}, {x}))"),
        *(f"{{{w}, {name}({x}, {x})}}", f"{{{w}: 'a'}}[{name}({x}, {x})]", f"sum([{w}, {w}])"),
        *(f"[{v}, {w}].index({w})", f"({w} + {w}) * 2", f"{w} * 2 * 3", f"({w} * 2 + {w}).x"),
        *(
            pen.pick(f"{w}.scaled(2) * 2", *[f"({w}.scaled(2) * 2).x"] * 4),
            f"{w}.scaled(3).x",
            f"{v} + 1",
            f"1 + {v}",
            f"{v} - 'a'",
            f"-{v} * 2",
        ),
        *(
            f"a, b = {w}",
            f"{v}.move(2)",
            f"{v}.move(1) is {v}",
            f"{v}.x",
            f"math.floor({v})",
            f"complex({v})",
            f"[{w}] * 2",
            f"({v},) == ({v},)",
        ),
        *(f"{name}(1, 2) + {name}(2) == {name}(3, 2)", f"[10, 20, 30, 40, 50, 60][{name}(1)]"),
    ]
    plain = [
        pen.pick(f"{v} == {k}", f"{k} == {v}", f"{w} == {x}", f"{w} != {x}")
    ]  # a rare thing to ask
    place = pen.chance.randrange(2, len(steps))
    steps[place:place] = plain if pen.chance.random() < 0.2 else []
    return code, pen.some([s for s in steps if not s.startswith("a, b")], 0.45)


@topic("classes", "aliasing", "recursion", "generators", "iteration")
def nodes(pen: Pen) -> tuple[str, list[str]]:
    name, build = pen.name("Node", "Item"), pen.name("build", "from_list")
    a = pen.name("head", "root", "first")
    code = f"""
class {name}:
    def __init__(self, value, next=None):
        self.value = value
        self.next = next
        self.tags = []

    def __iter__(self):
        node = self
        while node is not None:
            yield {pen.pick("node.value", "node")}
            node = node.next

    def last(self):
        return self if self.next is None else self.next.last()

def {build}(values):
    head = None
    for v in reversed(values):
        head = {name}(v, head)
    return head
"""
    values = pen.integers(5) + [pen.integer()]
    b = pen.name("b", "tail")
    steps = [
        *(f"!{a} = {build}({values})", f"{a}.value", f"{a}.next.value", f"len(list({a}))"),
        *(f"{a}.last() is {a}", f"!{b} = {name}({pen.value()!r})", f"!{a}.last().next = {b}"),
        *(f"{a}.last() is {b}", f"{b}.next is None", f"!{b}.tags.append({pen.integer()})"),
        *(f"{a}.last().tags", f"!{a}.next.value = {pen.integer()}", f"list({a})[1]", f"{a} == {a}"),
        *(f"{a}.next is {a}.next", f"!{b}.tags.append({a})", f"{b}.tags[-1] is {a}", f"{a} is {b}"),
        *(f"!t = {a}.tags", "!t += [1, 2]", f"{a}.tags", f"{a}.tags is t", f"{build}([])"),
        *(
            f"{a} in [{b}]",
            f"{a} in {{{a}, {b}}}",
            f"{{{a}: 1, {b}: 2}}[{a}]",
            f"hash({a}) == hash({b})",
        ),
        *(
            f"len({{{a}, {b}, {a}}})",
            f"copy.copy({b}).tags is {b}.tags",
            f"{a}.next.next.next.next.next.next.next",
        ),
        *(f"copy.deepcopy({b}).tags is {b}.tags", f"copy.deepcopy({b}).value == {b}.value"),
        *(
            f"vars({b})['tags']",
            f"{a} != {b}",
            f"{a} < {b}",
            f"type({a}).__name__",
            f"{a}.__dict__.keys()",
        ),
    ]
    return code, pen.some(steps, 0.55)


@topic("classes", "inheritance", "class attributes", "properties")
def shapes(pen: Pen) -> tuple[str, list[str]]:
    base, square, circle = (
        pen.name("Shape", "Figure"),
        pen.name("Square"),
        pen.name("Round", "Disc"),
    )
    total = pen.name("total", "areas")
    abstract = pen.chance.random() < 0.5
    head = f"import abc\nclass {base}(abc.ABC):" if abstract else f"class {base}:"
    mark = "    @abc.abstractmethod\n" if abstract else ""
    kinds = pen.name("registry", "kinds")
    hook = f"    def __init_subclass__(cls, **k):\n        super().__init_subclass__(**k)\n        {kinds}.append(cls)\n"
    code = f"""
{kinds} = []
{head}
    sides = 0
    names = []
{pen.maybe(hook)}
    def __init__(self, size):
        self.size = size
        self.names.append(type(self).__name__)

{mark}    def area(self):
        {pen.pick("raise NotImplementedError", "return 0")}

    def describe(self):
        return f'{{type(self).__name__}} {{self.area():.2f}}'

class {square}({base}):
    sides = 4

    def area(self):
        return self.size ** 2

    def __lt__(self, other):
        return self.area() < other.area()

class {circle}({square}):
    def area(self):
        return {pen.pick("super().area() * 3.14", "3.14 * self.size ** 2")}

    @property
    def width(self):
        return 2 * self.size

    @width.setter
    def width(self, value):
        self.size = value / 2

    @width.deleter
    def width(self):
        self.size = 0

def {total}(shapes):
    return sum(s.area() for s in shapes)
"""
    a, b, n = pen.name("a", "sq"), pen.name("b", "ci"), pen.integer(1, 6)
    steps = [
        *(
            f"!{a}, {b} = {square}({n}), {circle}({pen.integer(1, 9)})",
            f"{a}.area()",
            f"{b}.area()",
        ),
        *(
            f"{a}.describe()",
            f"{b}.describe()",
            f"{total}([{a}, {b}])",
            f"{b}.width",
            f"!{b}.width = 6",
        ),
        *(f"{b}.size", f"!del {b}.width", f"{b}.width", f"isinstance({b}, {square})", f"{a} < {b}"),
        *(
            f"isinstance({a}, {circle})",
            f"issubclass({circle}, {base})",
            f"{base}(2)",
            f"{base}.sides",
        ),
        *(f"{circle}.sides", f"!{square}.sides = 5", f"{circle}.sides", f"{a}.sides", f"{b}.names"),
        *(
            f"{a}.names is {b}.names",
            f"[c.__name__ for c in {circle}.__mro__]",
            f"{square}.__bases__ == ({base},)",
        ),
        *(
            f"sorted([{a}, {b}])[0] is {a}",
            f"max({a}, {b}).size",
            f"{base}.area({a})",
            f"{square}.area({b})",
        ),
        *(
            f"!{a}.sides = 1",
            f"{a}.sides + {b}.sides",
            f"!del {a}.sides",
            f"{a}.sides",
            f"{a}.width",
        ),
        *(f"{a}.__class__ is {square}", f"type({b}) in ({square}, {circle})", f"{base}(3).area()"),
        *(f"len({kinds})", f"{circle} in {kinds}", f"{square}.__doc__", f"{circle}.__qualname__"),
        *(f"hasattr({circle}, 'width')", f"hasattr({a}, 'width')", f"{{{square}: 1}}[type({a})]"),
    ]
    return code, pen.some(steps, 0.5)


@topic("enums", "classes", "iteration")
def color(pen: Pen) -> tuple[str, list[str]]:
    name, pick = pen.name("Color", "Level", "Mode"), pen.name("pick", "choose", "nxt")
    kind = pen.pick("Enum", "Enum", "IntEnum", "StrEnum", "Flag", "IntFlag")
    text = kind == "StrEnum"
    values = ["'r'", "'g'", "'b'"] if text else ["1", "2", "4"]
    code = f"""
import enum
class {name}(enum.{kind}):
    RED = {values[0]}
    GREEN = {values[1]}
    BLUE = {values[2]}
{pen.maybe("    ROT = RED" + chr(10), 0.3)}
    @property
    def label(self):
        return self.name.lower()

    @classmethod
    def first(cls):
        return next(iter(cls))
{pen.maybe("    def __str__(self):" + chr(10) + "        return '<' + self.name + '>'" + chr(10), 0.3)}

def {pick}(c):
    order = list({name})
    return order[(order.index(c) + 1) % len(order)]

default = {name}.GREEN
table = {{{name}.RED: 'warm', {name}.BLUE: 'cold'}}
"""
    bad = "'x'" if text else "77"
    steps = [
        *(
            f"{name}.RED",
            f"{name}.RED.value",
            f"{name}.BLUE.name",
            f"{name}({values[1]}) is {name}.GREEN",
        ),
        *(
            f"{name}['RED'] is {name}.RED",
            f"{name}({bad})",
            f"{name}['NO']",
            f"len({name})",
            f"list({name})",
        ),
        *(
            f"[c.name for c in {name}]",
            f"{name}.RED in {name}",
            f"{pick}({name}.RED) is {name}.GREEN",
        ),
        *(
            f"{pick}({name}.BLUE) == {name}.RED",
            f"{name}.RED == {values[0]}",
            f"{name}.RED != {name}.BLUE",
        ),
        *(
            f"str({name}.RED)",
            f"repr({name}.RED)",
            f"f'{{{name}.BLUE}}'",
            f"{name}.RED.label",
            f"{name}.first()",
        ),
        *(
            f"default is {name}.GREEN",
            f"table[{name}.RED]",
            f"table.get({name}.GREEN)",
            f"{name}.RED in table",
        ),
        *(
            f"isinstance({name}.RED, {name})",
            f"type({name}.RED) is {name}",
            f"{name}.RED < {name}.BLUE",
        ),
        *(
            f"{{{name}.RED: 1}}[{name}({values[0]})]",
            f"len({{{name}.RED, {name}.RED}})",
            f"bool({name}.RED)",
        ),
        *(
            f"sorted({name}, key=lambda c: c.value)[-1]",
            f"{name}.RED.value * 2",
            f"{name}.RED | {name}.BLUE",
        ),
        *(
            f"({name}.RED | {name}.BLUE).value",
            f"{name}.RED & {name}.RED",
            f"{name}.__members__['RED'].name",
        ),
        *(
            f"{name}.RED + 1",
            f"isinstance({name}.RED, int)",
            f"isinstance({name}.RED, str)",
            f"hash({name}.RED) == hash({name}.RED)",
        ),
        *(
            f"{name}.NONE",
            f"setattr({name}.RED, 'value', 3)",
            "default.label",
            f"max({name}.RED, {name}.BLUE)",
        ),
        *(
            f"[{name}.RED, {name}.BLUE].index({name}.BLUE)",
            f"{name}.RED is {name}.RED",
            f"copy.copy({name}.RED) is {name}.RED",
        ),
        *(
            f"{name}.RED in ({values[0]}, 3)",
            f"{values[0]} in [{name}.RED]",
            f"{name}.RED.__class__.__name__",
        ),
        *(f"copy.deepcopy({name}.BLUE) is {name}.BLUE", f"{name}.RED if {name}.RED else None"),
    ]
    return code, pen.some(steps, 0.4)


@topic("dataclasses", "classes", "operators")
def record(pen: Pen) -> tuple[str, list[str]]:
    name, outer = pen.name("Point3", "Entry", "Row"), pen.name("Box", "Group")
    options = ", ".join(
        x
        for x in (
            pen.maybe("order=True"),
            pen.maybe("frozen=True", 0.4),
            pen.maybe("slots=True", 0.2),
        )
        if x
    )
    default = pen.value(1)
    post = "    def __post_init__(self):\n        if self.x == 7:\n            raise ValueError('seven', self.x)\n"
    code = f"""
import dataclasses
from dataclasses import dataclass, field

@dataclass({options})
class {name}:
    x: int
    y: float = {pen.number()}
    tags: list = field(default_factory=list{pen.maybe(", compare=False", 0.3)})
{pen.maybe(post, 0.4)}
    def shifted(self, by):
        return dataclasses.replace(self, x=self.x + by)

    @property
    def size(self):
        return abs(self.x) + len(self.tags)

@dataclass
class {outer}:
    items: list[{name}]
    label: object = {tuple(default) if isinstance(default, (list, dict, set)) else default!r}
    index: dict = field(default_factory=dict, repr=False)

    def add(self, item):
        self.items.append(item)
        self.index[item.x] = item
        return self
"""
    a, b, g = pen.name("a", "one"), pen.name("b", "two"), pen.name("g", "box")
    n = pen.integer(0, 9)
    steps = [
        *(
            "!import dataclasses",
            f"!{a} = {name}({n}, tags=['q'])",
            f"!{b} = {name}({pen.integer(0, 9)}, 2.5)",
        ),
        *(
            f"{a}",
            f"repr({b})",
            f"{a} == {b}",
            f"{a} == {name}({n}, tags=['q'])",
            f"{a} < {b}",
            f"{a}.size",
        ),
        *(f"sorted([{b}, {a}])[0] == {a}", f"dataclasses.asdict({a})", f"dataclasses.astuple({b})"),
        *(
            f"[f.name for f in dataclasses.fields({a})]",
            f"dataclasses.is_dataclass({name})",
            f"{a}.shifted(2).x",
        ),
        *(
            f"dataclasses.replace({a}, y=1.0)",
            f"{a}.shifted(0) == {a}",
            f"{a}.shifted(1).tags is {a}.tags",
        ),
        *(
            f"setattr({a}, 'x', 5)",
            f"{a}.x",
            f"hash({a}) == hash({a})",
            f"{{{a}, {b}}}",
            f"{name}()",
        ),
        *(
            f"{name}(1, 2, 3, 4)",
            f"!{g} = {outer}([{a}])",
            f"{g}.add({b}) is {g}",
            f"{g}.items[-1] is {b}",
        ),
        *(
            f"{g}",
            f"{g} == {outer}([{a}])",
            f"dataclasses.asdict({g})",
            f"{g}.index",
            f"list({g}.index)",
        ),
        *(
            f"!{b}.tags.append(3)",
            f"{b}.tags",
            f"{g}.items[1].tags",
            f"copy.deepcopy({g}) == {g}",
            f"{g}.label",
        ),
        *(
            f"copy.deepcopy({g}).items[0] is {a}",
            f"copy.copy({g}).items is {g}.items",
            f"vars({g})['label']",
        ),
        *(
            f"{name}({n}, 1.0) == ({n}, 1.0)",
            f"{a} != 3",
            f"{name}.__name__",
            f"{name}.y",
            f"{b}.y + {a}.y",
        ),
        *(
            f"{name}(7)",
            f"isinstance({a}, {name})",
            f"len({g}.items)",
            f"f'{{{b}}}'",
            f"max({a}, {b}, key=lambda r: r.y)",
        ),
        *(
            f"{name}(x=1).tags is {name}(x=1).tags",
            f"{name}.__match_args__",
            f"[{a}, {b}].count({b})",
        ),
    ]
    return code, pen.some(steps, 0.45)


@topic("classes", "containers", "inheritance", "nested data")
def derived(pen: Pen) -> tuple[str, list[str]]:
    name, m = pen.name("Derived", "Mine"), pen.name("m", "mine")
    kind = pen.pick("list", "dict", "int", "float", "str", "tuple", "set", "collections.OrderedDict",
                    "collections.Counter", "collections.UserDict", "collections.defaultdict", "namedtuple", "NamedTuple")  # fmt: skip
    if kind in ("namedtuple", "NamedTuple"):
        if kind == "namedtuple":
            code = f"from collections import namedtuple\n{name} = namedtuple('{name}', 'x y'{pen.maybe(', defaults=[4]')})\n"
        else:
            code = f"import typing\nclass {name}(typing.NamedTuple):\n    x: int\n    y: int = 3\n    def total(self):\n        return self.x + self.y\n"
        code += f"def make{name}(a, b):\n    return {name}(a, b)\n"
        x, y = pen.integer(), pen.integer()
        steps = [
            *(
                f"!{m} = {name}({x}, {y})",
                f"{m}.x",
                f"{m}[1]",
                f"{m}",
                f"{m} == ({x}, {y})",
                f"({x}, {y}) == {m}",
            ),
            *(
                f"tuple({m})",
                f"len({m})",
                f"{m}._replace(x=9)",
                f"{m}._asdict()",
                f"{name}._fields",
                f"sum({m})",
            ),
            *(
                f"isinstance({m}, tuple)",
                f"isinstance({m}, {name})",
                f"make{name}({x}, {y}) == {m}",
                f"hash({m}) == hash(({x}, {y}))",
            ),
            *(
                f"make{name}(1, 2)",
                f"{m} + (1,)",
                f"{m} < ({x}, {y + 1})",
                f"{{{m}: 1}}[({x}, {y})]",
                f"{m}.total()",
            ),
            *(
                f"{m}.z",
                f"setattr({m}, 'x', 3)",
                f"{name}(1)",
                f"{name}(1, 2, 3)",
                f"sorted([{name}(2, 1), {m}])",
            ),
            *(
                f"{m}.index({y})",
                f"{m}.count({x})",
                f"{m}[-3]",
                f"[*{m}]",
                f"dict([{m}])",
                f"{m} in [({x}, {y})]",
            ),
            *(
                f"make{name}({x}, [])[1]",
                f"f'{{{m}}}'",
                f"type(make{name}(1, 2)).__name__",
                f"max({m})",
                f"{m}[::-1]",
            ),
            *(
                f"{name}._make([5, 6]).y",
                f"copy.copy({m}) == {m}",
                f"{m} is {m}",
                f"repr({m})",
                f"'%s-%s' % {m}",
            ),
        ]
        return code, pen.some(steps, 0.5)
    bodies = {
        "list": "    def push(self, x):\n        self.append(x)\n        return self\n    def top(self):\n        return self[-1]\n",
        "tuple": "    def top(self):\n        return self[-1]\n",
        "int": "    def twice(self):\n        return type(self)(self * 2)\n",
        "float": "    def half(self):\n        return self / 2\n",
        "str": "    def shout(self):\n        return self.upper() + '!'\n",
        "set": "    def grow(self, x):\n        self.add(x)\n        return len(self)\n",
    }
    mapping = "    def put(self, k, v=1):\n        self[k] = v\n        return self\n    def __missing__(self, k):\n        return 'no ' + str(k)\n"
    code = f"import collections\nclass {name}({kind}):\n" + bodies.get(kind, mapping)
    code += pen.maybe(f"    def __repr__(self):\n        return '{name}!'\n", 0.3)
    code += (
        pen.maybe("    def __len__(self):\n        return 42\n", 0.1)
        if kind in ("list", "dict", "set")
        else ""
    )
    k, n, word = pen.integer(1, 5), pen.integers(), pen.word()
    code += f"def give{name}(x):\n    return {name}(x)\n"
    values = {"list": n, "tuple": tuple(n), "int": k, "float": k / 4, "str": word, "set": set(n)}
    value = repr(values.get(kind, {word: k}))
    default = f"int, {value}" if "defaultdict" in kind else value
    steps = [
        *(
            f"!{m} = {name}({default})",
            f"{m} == {value}",
            f"{value} == {m}",
            f"{m} != {value}",
            f"bool({m})",
        ),
        *(
            f"{m}",
            f"repr({m})",
            f"str({m})",
            f"isinstance({m}, {kind})",
            f"type({m}) is {name}",
            f"f'{{{m}}}'",
        ),
        *(
            f"{m} is {m}",
            f"{{1: {m}}}",
            f"[{m}, 2]",
            f"copy.copy({m}) == {m}",
            f"copy.deepcopy({m}) == {m}",
        ),
        f"give{name}({default.removeprefix('int, ')})",
    ]
    if kind in ("list", "tuple", "str", "set") or "dict" in kind.lower() or "Counter" in kind:
        steps += [f"len({m})", f"list({m})", f"sorted({m})", f"{k} in {m}", f"[x for x in {m}]"]
    if kind == "list":
        steps += [
            *(
                f"{m}.push({k}) is {m}",
                f"{m}.top()",
                f"{m}[0]",
                f"{m}[1:]",
                f"!{m}.append({k})",
                f"{m}",
            ),
            *(
                f"!{m} += [1]",
                f"{m} + [1]",
                f"[1] + {m}",
                f"{m} * 2",
                f"!{m}.sort()",
                f"{m}",
                f"!{m}[0] = 9",
            ),
            *(
                f"{m}.pop()",
                f"{m}.index({k})",
                f"json_of({m})",
                f"{m} < [1]",
                f"!del {m}[0]",
                f"max({m})",
                f"{m}",
            ),
            *(
                f"sum({m})",
                f"{m}.count({k})",
                f"{m}.copy()",
                f"tuple({m})",
                f"set({m})",
                f"!{m}.extend([4, 5])",
                f"{m}",
            ),
        ]
        code += "import json\ndef json_of(x):\n    return json.dumps(x)\n"
    elif kind in ("int", "float"):
        steps += [
            *(
                f"{m} + 1",
                f"1 + {m}",
                f"{m} * {m}",
                f"{m} < 3",
                f"round({m}, 1)",
                f"int({m})",
                f"float({m})",
            ),
            *(
                f"{m}.twice()",
                f"{m}.half()",
                f"{m} in [{value}]",
                f"{{{value}: 1}}[{m}]",
                f"abs(-{m})",
                f"{m} % 2",
            ),
            *(
                f"range(9)[{m}]",
                f"f'{{{m}:5.1f}}'",
                f"max({m}, 2)",
                f"hash({m}) == hash({value})",
                f"-{m}",
                f"{m} ** 2",
            ),
        ]
    elif kind == "str":
        steps += [
            *(
                f"{m}.shout()",
                f"{m} + '!'",
                f"{m}[0]",
                f"{m}.upper()",
                f"'-'.join([{m}, {m}])",
                f"{m} in {{'{word}'}}",
            ),
            *(
                f"{{'{word}': 1}}[{m}]",
                f"{m} < 'm'",
                f"{m} * 2",
                f"{m}.split('a')",
                f"'a' in {m}",
                f"f'{{{m}:>8}}'",
            ),
        ]
    elif kind == "tuple":
        steps += [
            f"{m}.top()",
            f"{m}[0]",
            f"{m} + (1,)",
            f"hash({m}) == hash({value})",
            f"{m} < (1,)",
            f"max({m})",
        ]
    elif kind == "set":
        steps += [
            f"{m}.grow(77)",
            f"77 in {m}",
            f"{m} | {{3}}",
            f"{m} <= {{1, 2}}",
            f"!{m}.add(5)",
            f"{m} == {value}",
            f"{m} & {value}",
        ]
    else:
        steps += [
            *(
                f"{m}[{word!r}]",
                f"{m}['nope']",
                f"{m}.get('nope')",
                f"!{m}['z'] = {k}",
                f"{m}",
                f"{m}.items()",
            ),
            *(
                f"{m}.put('q')['q']",
                f"list({m}.keys())",
                f"dict({m})",
                f"{m}.pop('z', None)",
                f"'z' in {m}",
                f"{{**{m}}}",
            ),
            *(
                f"!{m}.update(w=3)",
                f"{m}.get('w')",
                f"len({m})",
                f"{m} == dict({m})",
                f"!del {m}[{word!r}]",
                f"{word!r} in {m}",
            ),
        ]
    return code, pen.some(steps, 0.5)


@topic("classes", "properties", "closures", "default arguments")
def magic(pen: Pen) -> tuple[str, list[str]]:
    name, o = pen.name("Proxy", "Config", "Lazy"), pen.name("o", "cfg", "obj")
    parts = [
        "    def __getattr__(self, key):\n        if key.startswith('x'):\n            return key * 2\n        raise AttributeError(f'no {key}')\n",
        "    def __setattr__(self, key, value):\n        object.__setattr__(self, key, value)\n        self.__dict__.setdefault('seen', []).append(key)\n",
        "    def __delattr__(self, key):\n        self.__dict__.pop(key, None)\n",
        "    def __call__(self, *args, key=None, **rest):\n        return args, key, sorted(rest)\n",
        "    @functools.cached_property\n    def slow(self):\n        self.calls = self.calls + 1\n        return [self.calls]\n",
        "    def __dir__(self):\n        return ['b', 'a']\n",
        "    def __format__(self, spec):\n        return f'[{spec}]'\n",
        "    def __bool__(self):\n        return self.calls % 2 == 0\n",
        "    def __enter__(self):\n        self.calls += 1\n        return self\n    def __exit__(self, kind, error, trace):\n        self.left = kind and kind.__name__\n        return kind is KeyError\n",
    ]
    code = f"import functools\nclass {name}:\n    calls = 0\n    def __init__(self, **options):\n        for k, v in options.items():\n            setattr(self, k, v)\n"
    code += "".join(pen.maybe(part, 0.6) for part in parts)
    code += f"def add{name}(x, into=[]):\n    into.append(x)\n    return into\n"
    code += f"def opts{name}(a, /, b=2, *c, d, **e):\n    return [a, b, c, d, e]\n"
    k = pen.integer()
    steps = [
        *(
            f"!{o} = {name}(a={k}, b={pen.value()!r})",
            f"{o}.a",
            f"{o}.b",
            f"{o}.xy",
            f"{o}.zz",
            f"{o}.seen",
        ),
        *(
            f"{o}(1, 2, key=3, z=4, y=5)",
            f"{o}.slow",
            f"{o}.slow is {o}.slow",
            f"{o}.calls",
            f"dir({o})[:2]",
        ),
        *(
            f"f'{{{o}:>5}}'",
            f"bool({o})",
            f"!{o}.c = 5",
            f"{o}.c",
            f"!del {o}.a",
            f"{o}.a",
            f"hasattr({o}, 'xq')",
        ),
        *(
            f"add{name}(1)",
            f"add{name}(2)",
            f"add{name}(3, [])",
            f"add{name}(4) is add{name}(5)",
            f"opts{name}(1, d=2)",
        ),
        *(
            f"opts{name}(1, 2, 3, d=4, f=5)",
            f"opts{name}(a=1, d=2)",
            f"opts{name}(1)",
            f"opts{name}(*[1, 2, 3], **{{'d': 1}})",
        ),
        *(
            f"callable({o})",
            f"getattr({o}, 'qq', None)",
            f"vars({o}).get('c')",
            f"not {o}",
            f"{o} and 1",
        ),
        f"!with {o} as inner:\n    same = inner is {o}",
        *(
            "same",
            f"{o}.left",
            f"!with {o}:\n    {{}}['k']",
            f"{o}.left",
            f"!with {o}:\n    1 / 0",
            f"{o}.left",
        ),
        *(
            f"{o} == {o}",
            f"{name}(a=1) == {name}(a=1)",
            f"{o}.__dict__.get('a')",
            f"opts{name}.__name__",
            f"opts{name}.__defaults__",
        ),
    ]
    return code, pen.some(steps, 0.5)


@topic("classes", "inheritance", "identity")
def metaclass(pen: Pen) -> tuple[str, list[str]]:
    name, meta, reg = pen.name("One", "Single"), pen.name("Meta"), pen.name("Plugin")
    a = pen.name("a", "u")
    style = pen.pick(
        f"class {meta}(type):\n    made = {{}}\n    def __call__(cls, *a, **k):\n        if cls not in {meta}.made:\n            {meta}.made[cls] = super().__call__(*a, **k)\n        return {meta}.made[cls]\n"
        f"class {name}(metaclass={meta}):\n    def __init__(self, v=0):\n        self.v = v\n",
        f"class {name}:\n    only = None\n    def __new__(cls, *a):\n        if cls.only is None:\n            cls.only = super().__new__(cls)\n        return cls.only\n    def __init__(self, v=0):\n        self.v = v\n",
        f"def single(cls):\n    made = []\n    def get(*a):\n        if not made:\n            made.append(cls(*a))\n        return made[0]\n    return get\n@single\nclass {name}:\n    def __init__(self, v=0):\n        self.v = v\n",
        f"class {name}:\n    pool = {{}}\n    def __new__(cls, v=0):\n        if v not in cls.pool:\n            cls.pool[v] = object.__new__(cls)\n            cls.pool[v].v = v\n        return cls.pool[v]\n",
    )
    code = (
        style
        + f"""
class {reg}:
    known = {{}}
    @classmethod
    def register(cls, key):
        def put(target):
            cls.known[key] = target
            return target
        return put

@{reg}.register('dog')
class Dog{reg}:
    def speak(self):
        return 'wuff'

@{reg}.register('fn')
def cat{reg}():
    return 'miau'

def make{reg}(key):
    return {reg}.known[key]()
"""
    )
    k = pen.integer(0, 5)
    steps = [
        *(
            f"!{a} = {name}({k})",
            f"{name}() is {name}()",
            f"{a} is {name}({k})",
            f"{name}({k + 1}).v",
            f"{a}.v",
        ),
        *(
            f"{a} == {name}({k})",
            f"len({{{name}(), {name}()}})",
            f"[{name}(1)].index({name}(1))",
            f"!{a}.v = 9",
            f"{name}({k}).v",
        ),
        *(
            f"make{reg}('dog').speak()",
            f"make{reg}('fn')",
            f"make{reg}('no')",
            f"sorted({reg}.known)",
            f"{reg}.known['fn'] is cat{reg}",
        ),
        *(
            f"{reg}.known['dog'] is Dog{reg}",
            f"isinstance(make{reg}('dog'), Dog{reg})",
            f"type({a}).__name__",
            f"'dog' in {reg}.known",
        ),
        *(
            f"!{reg}.register('x')(len)",
            f"{reg}.known['x']([1, 2])",
            f"!{reg}.known['y'] = Dog{reg}",
            f"make{reg}('y').speak()",
        ),
        *(
            f"id({a}) == id({name}({k}))",
            f"{reg}.known.get('z')",
            f"callable({reg}.known['fn'])",
            f"make{reg}('dog') is make{reg}('dog')",
        ),
    ]
    return code, pen.some(steps, 0.6)
